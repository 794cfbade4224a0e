import pytest
import torch
from transformers import LogitsProcessorList

from capkit.decoding.config import Decoding
from capkit.decoding.sampling import ChooseToken, constraints, inverse_cdf, warpers
from capkit.utils import rng

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -3.0])
NUM_DRAWS = 40_000


def draw(decoding, logits=LOGITS):
    """Independent draws of one token from the same logits, and their recorded log-probs."""
    chooser = ChooseToken(LogitsProcessorList(), warpers(decoding), torch.arange(NUM_DRAWS))
    scores = chooser(torch.zeros(NUM_DRAWS, 1, dtype=torch.int64), logits.expand(NUM_DRAWS, -1))
    return scores.argmax(-1), chooser.logprobs[0]


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
    logprobs = torch.tensor([[0.25, 0.0, 0.5, 0.25, 0.0]]).log().repeat(6, 1)  # cumulated .25 .25 .75 1 1
    uniforms = torch.tensor([0.0, 0.2499, 0.2501, 0.7499, 0.7501, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(logprobs, uniforms).tolist() == [0, 0, 2, 2, 3, 3]


def test_draw_uses_the_keyed_uniform_of_its_position():
    ids = torch.tensor([5, 6, 7])
    chooser = ChooseToken(LogitsProcessorList(), LogitsProcessorList(), ids)
    for position in range(3):
        scores = chooser(torch.zeros(3, 1 + position, dtype=torch.int64), LOGITS.expand(3, -1))
        expected = inverse_cdf(LOGITS.log_softmax(-1).expand(3, -1), rng.uniform(ids, position))
        assert scores.argmax(-1).tolist() == expected.tolist()


def test_greedy_obeys_constraints_and_records_the_untouched_model():
    decoding = Decoding(min_length=2)
    eos = 0  # the most probable token, banned at first
    chooser = ChooseToken(constraints(decoding, 1, eos, torch.device("cpu")), LogitsProcessorList(), None)
    for num_written, expected in ((0, 1), (1, 1), (2, 0)):
        scores = chooser(torch.ones(1, 1 + num_written, dtype=torch.int64), LOGITS[None])
        assert scores.argmax(-1).item() == expected
        assert chooser.logprobs[-1].item() == pytest.approx(LOGITS.log_softmax(-1)[expected].item())


def test_chosen_token_is_the_only_one_left():
    chooser = ChooseToken(LogitsProcessorList(), LogitsProcessorList(), torch.arange(4))
    scores = chooser(torch.zeros(4, 1, dtype=torch.int64), LOGITS.expand(4, -1))
    assert (scores > -torch.inf).sum(-1).tolist() == [1, 1, 1, 1]
