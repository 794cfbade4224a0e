import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from capkit.decoding.config import Decoding
from capkit.decoding.guide import Guide
from capkit.errors import UsageError
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.objectives.policy.base import check_sampling
from capkit.text.tokenizers import word_tokenizer
from capkit.types import CaptionBatch, Context

KEYS = ["a.png", "b.png", "c.png", "d.png"]


@pytest.fixture
def captioner():
    """Peaked and varied enough that captions differ, end, and do not tie."""
    torch.manual_seed(1)
    tokenizer = word_tokenizer([" ".join(f"w{i}" for i in range(12))])
    model = EncoderDecoder(tokenizer, feature_width=6, width=16, num_layers=2, num_heads=2, max_length=24, dropout=0.3)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.35)
    return model.eval()


@pytest.fixture
def batch():
    return CaptionBatch(keys=KEYS, features=torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0)))


def rows(samples):
    """Real tokens and their log-probs by image and sample, whatever the padding."""
    return [
        [(t[m].tolist(), lp[m[1:]]) for t, m, lp in zip(*per_image, strict=True)]
        for per_image in zip(samples.tokens, samples.mask, samples.logprobs, strict=True)
    ]


def assert_same_rows(one, other):
    for image, image_again in zip(one, other, strict=True):
        for (tokens, logprobs), (tokens_again, logprobs_again) in zip(image, image_again, strict=True):
            assert tokens == tokens_again
            torch.testing.assert_close(logprobs, logprobs_again, atol=2e-5, rtol=0)


METHODS = [
    (Decoding(max_length=10), 1),
    (Decoding("sample", max_length=10, seed=3), 3),
    (Decoding("sample", max_length=10, temperature=0.7, top_k=8, top_p=0.9), 2),
    (Decoding("beam", max_length=10, num_beams=4), 2),
]


@pytest.mark.parametrize(("decoding", "num_samples"), METHODS)
def test_same_captions_whatever_the_batch_or_order(captioner, batch, decoding, num_samples):
    def write(part):
        return rows(captioner.generate(captioner.encode(part), decoding, num_samples))

    whole = write(batch)
    assert_same_rows(whole, write(batch[0:2]) + write(batch[2:4]))
    assert_same_rows(whole, [row for i in range(4) for row in write(batch[i : i + 1])])
    order = [2, 0, 3, 1]
    shuffled = CaptionBatch(keys=[KEYS[i] for i in order], features=batch.features[order])
    assert_same_rows([whole[i] for i in order], write(shuffled))


def test_first_samples_stay_when_more_are_drawn(captioner, batch):
    context = captioner.encode(batch)
    few = rows(captioner.generate(context, Decoding("sample", max_length=10), 2))
    many = rows(captioner.generate(context, Decoding("sample", max_length=10), 5))
    assert_same_rows(few, [image[:2] for image in many])


def test_seed_key_and_sample_each_change_the_draw(captioner, batch):
    def write(context, seed=0):
        return captioner.generate(context, Decoding("sample", max_length=10, seed=seed), 2).texts

    context = captioner.encode(batch)
    same_image = Context(context.states[:1].repeat(2, 1, 1), None, ["x", "y"])
    texts = write(same_image)
    assert len({text for image in texts for text in image}) == 4
    assert write(context) != write(context, seed=1)
    assert write(context) == write(context)


@pytest.mark.parametrize(
    ("decoding", "num_samples"),
    [(Decoding(max_length=12), 1), (Decoding("sample", max_length=12), 4), (Decoding("beam", num_beams=3), 3)],
)
def test_recorded_logprobs_are_the_teacher_forced_ones(captioner, batch, decoding, num_samples):
    captioner.max_length = 64
    captioner.decoder.positions = nn.Parameter(torch.randn(64, 16) * 0.35)
    context = captioner.encode(batch)
    samples = captioner.generate(context, decoding, num_samples)
    forced = captioner.logprobs(context, samples.tokens, samples.mask)
    torch.testing.assert_close(samples.logprobs, forced, atol=2e-5, rtol=1e-5)
    assert (samples.logprobs[samples.mask[..., 1:]] < 0).all()
    assert (samples.logprobs[~samples.mask[..., 1:]] == 0).all()


def test_temperature_logprobs_are_the_teacher_forced_ones_at_that_temperature(captioner, batch):
    context = captioner.encode(batch)
    samples = captioner.generate(context, Decoding("sample", temperature=0.6, max_length=12), 3)
    forced = captioner.logprobs(context, samples.tokens, samples.mask, temperature=0.6)
    torch.testing.assert_close(samples.logprobs, forced, atol=2e-5, rtol=1e-5)


def test_truncated_logprobs_are_of_the_renormalised_distribution(captioner, batch):
    context = captioner.encode(batch)
    samples = captioner.generate(context, Decoding("sample", top_k=3, max_length=8), 2)
    logits = captioner(context, samples.tokens, samples.mask)[:, :, :-1].double()
    best = logits.topk(3, dim=-1)
    kept = torch.full_like(logits, -torch.inf).scatter(-1, best.indices, best.values).log_softmax(-1)
    expected = kept.gather(-1, samples.tokens[:, :, 1:, None]).squeeze(-1).masked_fill(~samples.mask[..., 1:], 0)
    torch.testing.assert_close(samples.logprobs.double(), expected, atol=2e-5, rtol=1e-5)


def test_greedy_takes_the_best_token_at_each_step(captioner, batch):
    context = captioner.encode(batch)
    samples = captioner.generate(context, Decoding(max_length=8))
    best = captioner(context, samples.tokens, samples.mask).argmax(-1)[..., :-1]
    real = samples.mask[..., 1:]
    assert (best[real] == samples.tokens[..., 1:][real]).all()


@pytest.mark.parametrize("settings", [{}, {"min_length": 3, "no_repeat_ngram_size": 2}, {"top_k": 3}])
def test_greedy_captions_in_the_rows_of_a_rollout_are_those_written_alone(captioner, batch, settings):
    context = captioner.encode(batch)
    both = captioner.generate(context, Decoding("sample", max_length=10, **settings), 2, with_greedy=True)
    sampled = captioner.generate(context, Decoding("sample", max_length=10, **settings), 2)
    settings.pop("top_k", None)
    greedy = captioner.generate(context, Decoding(max_length=10, **settings))
    assert_same_rows(rows(both.numbers(slice(0, 2))), rows(sampled))
    assert_same_rows(rows(both.numbers(slice(2, None))), rows(greedy))
    assert both.texts == [[*a, *b] for a, b in zip(sampled.texts, greedy.texts, strict=True)]
    if both.support is not None:
        assert (both.support[:, 2:] == 255).all()  # the greedy caption is of the whole distribution


def exhaustive(captioner, context, max_length, length_penalty):
    """The best of all captions of one image: every sequence that ends at EOS or is cut at `max_length`."""
    bos, eos = captioner.tokenizer.bos_token_id, captioner.tokenizer.eos_token_id
    others = [i for i in range(len(captioner.tokenizer)) if i != eos]
    candidates = []
    for length in range(1, max_length + 1):
        candidates += [(*words, eos) for words in itertools.product(others, repeat=length - 1)]
    candidates += list(itertools.product(others, repeat=max_length))
    tokens = torch.zeros(1, len(candidates), max_length + 1, dtype=torch.int64)
    mask = torch.zeros(tokens.shape, dtype=torch.bool)
    for k, words in enumerate(candidates):
        tokens[0, k, : len(words) + 1] = torch.tensor([bos, *words])
        mask[0, k, : len(words) + 1] = True
    lengths = mask[0].sum(-1) - 1
    scores = captioner.logprobs(context, tokens, mask)[0].sum(-1) / lengths**length_penalty
    return [bos, *candidates[int(scores.argmax())]]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_wide_beam_finds_what_exhaustive_search_finds(length_penalty):
    torch.manual_seed(5)
    model = EncoderDecoder(word_tokenizer(["x y"]), feature_width=3, width=8, num_heads=2, max_length=8, dropout=0.0)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.6)
    batch = CaptionBatch(keys=["a", "b", "c"], features=torch.randn(3, 2, 3))
    decoding = Decoding("beam", num_beams=6**3, max_length=4, length_penalty=length_penalty)
    with torch.no_grad():
        samples = model.eval().generate(model.encode(batch), decoding)
        for i in range(3):
            best = exhaustive(model, model.encode(batch[i : i + 1]), 4, length_penalty)
            assert samples.tokens[i, 0][samples.mask[i, 0]].tolist() == best


def test_beams_come_best_first(captioner, batch):
    samples = captioner.generate(captioner.encode(batch), Decoding("beam", num_beams=5, max_length=8), 5)
    scores = samples.logprobs.sum(-1) / (samples.mask.sum(-1) - 1)
    assert (scores.diff(dim=-1) <= 1e-5).all()


def favour_eos(captioner, amount):
    """Adds to EOS's logit by a head with a bias."""
    head = nn.Linear(captioner.width, captioner.vocab_size)
    head.weight = captioner.head.weight
    head.bias.data.zero_()
    head.bias.data[captioner.tokenizer.eos_token_id] = amount
    captioner.head = head


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(min_length=3, max_length=6),
        Decoding("sample", min_length=3, max_length=6),
        Decoding("beam", num_beams=3, min_length=3, max_length=6),
    ],
)
def test_min_length_words_come_before_eos(captioner, batch, decoding):
    favour_eos(captioner, 50.0)
    samples = captioner.generate(captioner.encode(batch), decoding)
    assert samples.ended.all()
    assert (samples.mask.sum(-1) == 1 + 3 + 1).all()  # BOS, three words, EOS


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
def test_caption_that_hits_the_cap_has_not_ended_and_holds_no_eos(captioner, batch, method):
    favour_eos(captioner, -50.0)
    decoding = Decoding(method, max_length=5, num_beams=3 if method == "beam" else 1)
    samples = captioner.generate(captioner.encode(batch), decoding)
    assert not samples.ended.any()
    assert samples.mask.all()
    assert samples.tokens.shape[-1] == 1 + 5
    assert (samples.tokens[..., 1:] != captioner.tokenizer.eos_token_id).all()


def test_ended_caption_is_eos_then_padding(captioner, batch):
    samples = captioner.generate(captioner.encode(batch), Decoding("sample", max_length=20), 6)
    eos, pad = captioner.tokenizer.eos_token_id, captioner.tokenizer.pad_token_id
    assert samples.ended.any()
    for tokens, mask, ended in zip(
        samples.tokens.flatten(0, 1), samples.mask.flatten(0, 1), samples.ended.flatten(), strict=True
    ):
        real = tokens[mask].tolist()
        assert real.count(eos) == int(ended)
        assert (real[-1] == eos) == bool(ended)
        assert (tokens[~mask] == pad).all()


def test_eos_is_found_where_it_is_also_bos_and_pad(captioner, batch):
    favour_eos(captioner, 1.0)
    captioner.tokenizer.bos_token = captioner.tokenizer.pad_token = captioner.tokenizer.eos_token
    samples = captioner.generate(captioner.encode(batch), Decoding("sample", max_length=20), 4)
    eos = captioner.tokenizer.eos_token_id
    new = samples.tokens[..., 1:].masked_select(samples.mask[..., 1:])
    assert samples.ended.any()
    assert (samples.tokens[..., 0] == eos).all()
    assert int((new == eos).sum()) == int(samples.ended.sum())
    assert (samples.mask.sum(-1)[samples.ended] > 1).all()


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
def test_no_bigram_repeats(captioner, batch, method):
    favour_eos(captioner, -50.0)
    settings = {"max_length": 16, "num_beams": 2 if method == "beam" else 1}
    free = captioner.generate(captioner.encode(batch), Decoding(method, **settings))
    bound = captioner.generate(captioner.encode(batch), Decoding(method, no_repeat_ngram_size=2, **settings))

    def repeats(samples):
        rows = samples.tokens[:, 0].tolist()
        return [len(row) - 1 - len(set(itertools.pairwise(row))) for row in rows]

    assert sum(repeats(free)) > 0
    assert sum(repeats(bound)) == 0


def test_prompt_is_kept_in_tokens_left_out_of_texts_and_without_logprobs(captioner, batch):
    captioner.prompt = "w1 w2"
    samples = captioner.generate(captioner.encode(batch), Decoding("sample", max_length=6), 2)
    ids = captioner.tokenizer.convert_tokens_to_ids(["<bos>", "w1", "w2"])
    assert (samples.tokens[..., :3] == torch.tensor(ids)).all()
    assert (samples.logprobs[..., :2] == 0).all()
    assert (samples.logprobs[..., 2] < 0).all()
    new = samples.tokens[0, 0, 3:][samples.mask[0, 0, 3:]]
    assert samples.texts[0][0] == captioner.tokenizer.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize(("decoding", "num_samples"), METHODS)
def test_words_to_start_with_are_in_the_caption_behind_the_captioners_own_prompt(
    captioner, batch, decoding, num_samples
):
    """The same tokens as with a captioner whose prompt is both; but the words are in the text."""
    captioner.prompt = "w1"
    context = captioner.encode(batch)
    given = captioner.generate(context, replace(decoding, prompt="w5 w2"), num_samples)
    captioner.prompt = "w1 w5 w2"
    whole = captioner.generate(context, decoding, num_samples)
    assert_same_rows(rows(given), rows(whole))
    assert given.texts == [[f"w5 w2 {text}".strip() for text in texts] for texts in whole.texts]
    assert (given.logprobs[..., :3] == 0).all()


def test_guided_captions_start_with_the_words_too(captioner, batch):
    decoding = Decoding(max_length=6, prompt="w5 w2", guide=Guide(1.0))
    context = captioner.encode(batch)
    guided = captioner.generate(context, decoding)
    assert guided.texts == captioner.generate(context, replace(decoding, guide=None)).texts
    assert all(text.startswith("w5 w2") for (text,) in guided.texts)


def test_rollouts_take_no_words_to_start_with():
    with pytest.raises(UsageError, match=r"rollout\.prompt are given, not written; got 'w1'"):
        check_sampling("SelfCritical", Decoding("sample", prompt="w1"), 2, "none")


def test_words_that_the_vocabulary_lacks_cannot_start_a_caption(captioner, batch):
    with pytest.raises(UsageError, match=r"prompt='w5 colour is': .* got colour, is, which no training caption has"):
        captioner.generate(captioner.encode(batch), Decoding(max_length=6, prompt="w5 colour is"))


def test_writing_is_without_dropout_and_gradient_and_restores_training_mode(captioner, batch):
    context = captioner.encode(batch)
    captioner.train()
    captioner.decoder.layers[0].eval()  # what was in eval mode stays so
    modes = [module.training for module in captioner.modules()]
    first = captioner.generate(context, Decoding("sample", max_length=8))
    second = captioner.generate(context, Decoding("sample", max_length=8))
    assert torch.equal(first.logprobs, second.logprobs)
    assert not first.logprobs.requires_grad
    assert [module.training for module in captioner.modules()] == modes


@pytest.mark.parametrize(
    ("decoding", "num_samples", "words"),
    [
        (Decoding(), 2, "decoding=sample"),
        (Decoding("sample"), 0, "num_samples"),
        (Decoding("beam", num_beams=2, max_length=5), 3, "num_beams"),
        (Decoding(max_length=24), 1, "24 positions"),
        (Decoding(max_length=22, prompt="w1 w2"), 1, "got 3 .*=22"),
    ],
)
def test_impossible_requests_are_usage_errors(captioner, batch, decoding, num_samples, words):
    with pytest.raises(UsageError, match=words):
        captioner.generate(captioner.encode(batch), decoding, num_samples)
