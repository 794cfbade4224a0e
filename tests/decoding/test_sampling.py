import pytest
import torch

from capkit.decoding.config import Decoding
from capkit.decoding.sampling import BLOCK, TokenChooser, constrained, constraints, inverse_cdf
from capkit.utils import rng

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -3.0])
NUM_DRAWS = 40_000
NO_EOS = -1


def draw(decoding, logits=LOGITS):
    """Independent draws of one token from the same logits, and their recorded log-probs."""
    chooser = TokenChooser(decoding, NO_EOS, torch.arange(NUM_DRAWS))
    drawn = chooser(logits.expand(NUM_DRAWS, -1), torch.zeros(NUM_DRAWS, 1, dtype=torch.int64))
    return drawn, chooser.logprobs[0]


def chi_square(drawn, probabilities):
    """Pearson's statistic over the tokens that can occur; those that cannot must not."""
    counts = torch.bincount(drawn, minlength=len(probabilities)).double()
    possible = probabilities > 0
    assert counts[~possible].sum() == 0
    expected = probabilities[possible] * len(drawn)
    return float(((counts[possible] - expected) ** 2 / expected).sum()), int(possible.sum()) - 1


# 99.9 % points of the chi-square distribution by degrees of freedom.
CRITICAL = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46}


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_draws_follow_the_softmax_at_the_temperature(temperature):
    drawn, logprobs = draw(Decoding("sample", temperature=temperature))
    expected = (LOGITS.double() / temperature).softmax(-1)
    statistic, freedom = chi_square(drawn, expected)
    assert statistic < CRITICAL[freedom]
    torch.testing.assert_close(logprobs, expected.log().float()[drawn])


def test_chi_square_notices_a_wrong_temperature():
    drawn, _ = draw(Decoding("sample", temperature=1.1))
    statistic, freedom = chi_square(drawn, LOGITS.double().softmax(-1))
    assert statistic > CRITICAL[freedom]


def test_top_k_keeps_the_k_best_and_renormalises():
    drawn, logprobs = draw(Decoding("sample", top_k=3))
    expected = torch.zeros(7, dtype=torch.float64)
    expected[:3] = LOGITS[:3].double().softmax(-1)
    statistic, freedom = chi_square(drawn, expected)
    assert freedom == 2
    assert statistic < CRITICAL[freedom]
    torch.testing.assert_close(logprobs, expected.log().float()[drawn])


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()  # .5 < .7 <= .5 + .3
    drawn, logprobs = draw(Decoding("sample", top_p=0.7), logits)
    expected = torch.tensor([0.625, 0.375, 0.0, 0.0], dtype=torch.float64)
    statistic, freedom = chi_square(drawn, expected)
    assert statistic < CRITICAL[freedom]
    torch.testing.assert_close(logprobs, expected.log().float()[drawn])


def test_top_p_counts_what_temperature_and_top_k_left():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    # Temperature 0.5 squares: .16 .09 .04 .01; top-k 3 leaves .5517 .3103 .1379; two of them reach .85.
    drawn, logprobs = draw(Decoding("sample", temperature=0.5, top_k=3, top_p=0.85), logits)
    expected = torch.tensor([16 / 25, 9 / 25, 0.0, 0.0], dtype=torch.float64)
    statistic, freedom = chi_square(drawn, expected)
    assert statistic < CRITICAL[freedom]
    torch.testing.assert_close(logprobs, expected.log().float()[drawn])


def test_inverse_cdf_hand_worked():
    probabilities = torch.tensor([[0.25, 0.0, 0.5, 0.25, 0.0]]).repeat(6, 1)  # cumulated .25 .25 .75 1 1
    uniforms = torch.tensor([0.0, 0.2499, 0.2501, 0.7499, 0.7501, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(probabilities, uniforms).tolist() == [0, 0, 2, 2, 3, 3]


def test_inverse_cdf_in_two_levels_is_that_of_the_whole_vocabulary():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(300, 3 * BLOCK + 7, generator=generator).mul(4).softmax(-1)
    probabilities[:, BLOCK : 2 * BLOCK] = 0.0  # a block that nothing may hit
    uniforms = torch.rand(300, generator=generator, dtype=torch.float64)
    whole = probabilities.double().cumsum(-1)
    expected = torch.searchsorted(whole, uniforms[:, None] * whole[:, -1:], right=True).squeeze(-1)
    assert inverse_cdf(probabilities, uniforms).tolist() == expected.tolist()


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_no_token_of_probability_zero_is_drawn_at_the_edges_of_a_block(uniform):
    """Probabilities that are no binary fractions, so that the two levels round differently."""
    probabilities = torch.zeros(50, 3 * BLOCK)
    for row in range(50):
        probabilities[row, BLOCK - 1 - row : BLOCK - 1] = 0.1 / (row + 3)
        probabilities[row, 2 * BLOCK + row] = 0.3
    drawn = inverse_cdf(probabilities, torch.full((50,), uniform, dtype=torch.float64))
    assert (probabilities.gather(1, drawn[:, None]) > 0).all()


def test_draw_uses_the_keyed_uniform_of_its_position():
    ids = torch.tensor([5, 6, 7])
    chooser = TokenChooser(Decoding("sample"), NO_EOS, ids)
    for position in range(3):
        drawn = chooser(LOGITS.expand(3, -1), torch.zeros(3, 1 + position, dtype=torch.int64))
        expected = inverse_cdf(LOGITS.softmax(-1).expand(3, -1), rng.uniform(ids, position))
        assert drawn.tolist() == expected.tolist()


def test_greedy_obeys_constraints_and_records_the_untouched_model():
    eos = 0  # the most probable token, banned at first
    chooser = TokenChooser(Decoding(min_length=2), eos, None)
    for num_written, expected in ((0, 1), (1, 1), (2, 0)):
        chosen = chooser(LOGITS[None], torch.ones(1, 1 + num_written, dtype=torch.int64))
        assert chosen.item() == expected
        assert chooser.logprobs[-1].item() == pytest.approx(LOGITS.log_softmax(-1)[expected].item())


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 3, 9])
def test_constraints_are_those_of_transformers(size, length):
    generator = torch.Generator().manual_seed(length)
    tokens = torch.randint(4, (20, length), generator=generator)
    scores = torch.randn(20, 7, generator=generator)
    decoding = Decoding(min_length=3, no_repeat_ngram_size=size)
    expected = constraints(decoding, 1, 6, torch.device("cpu"))(tokens, scores)
    assert torch.equal(constrained(scores, tokens, length - 1, decoding, 6), expected)
    stops = torch.tensor([1, 3])
    expected = constraints(decoding, 1, 6, torch.device("cpu"), stops.tolist())(tokens, scores)
    assert torch.equal(constrained(scores, tokens, length - 1, decoding, 6, stops), expected)
