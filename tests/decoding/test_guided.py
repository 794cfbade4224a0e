"""Guided decoding: the guided distribution, its rules, and language models that guide."""

import itertools
import math

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config

from capkit.decoding.config import Decoding
from capkit.decoding.guide import Guide, LanguageModelGuide
from capkit.decoding.guided import GuidedCaptioner, guided_logprobs
from capkit.decoding.language_model import CaptionerWithoutImage, CausalLanguageModel, check_same_tokens, read_prompt
from capkit.errors import UsageError
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.objectives.policy.self_critical import SelfCritical
from capkit.text.tokenizers import word_tokenizer
from capkit.types import CaptionBatch

WITH_IMAGE, WITHOUT = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.7, 0.1, 0.2]).log()


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (1.0, [0.5, 0.3, 0.2]),
        (1.5, [0.36997, 0.454928, 0.175102]),
        (2.0, [0.245098, 0.617647, 0.137255]),  # .5^2/.7, .3^2/.1, .2^2/.2, divided by their sum
        (3.0, [0.080854, 0.855757, 0.063389]),
    ],
)
def test_a_step_worked_by_hand(scale, expected):
    found = guided_logprobs(WITH_IMAGE, WITHOUT, Guide(scale).weights).exp()
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)


def test_a_step_with_a_language_model_worked_by_hand():
    language = torch.tensor([0.2, 0.2, 0.6]).log()
    found = guided_logprobs(WITH_IMAGE, WITHOUT, LanguageModelGuide("lm", 2.0, 1.0).weights, language).exp()
    scores = torch.tensor([0.25 / 0.7 * 0.2, 0.09 / 0.1 * 0.2, 0.04 / 0.2 * 0.6])
    torch.testing.assert_close(found, scores / scores.sum())


def test_a_constant_added_to_the_logits_of_either_reading_changes_nothing():
    shifted = guided_logprobs(WITH_IMAGE + 3, WITHOUT - 2, (1.5, 0.5))
    torch.testing.assert_close(shifted, guided_logprobs(WITH_IMAGE, WITHOUT, (1.5, 0.5)))


def test_what_is_impossible_without_the_image_has_a_finite_score_and_what_is_with_it_none():
    never = torch.tensor([0.0, -math.inf, -math.inf])
    found = guided_logprobs(torch.tensor([0.0, 0.0, -math.inf]), never, (2.0, 1.0))
    assert found[:2].isfinite().all() and found[2] == -math.inf
    assert found.exp().sum() == pytest.approx(1)


@pytest.fixture
def tokenizer():
    return word_tokenizer([" ".join(f"w{i}" for i in range(12))])


def built(tokenizer, seed=4):
    torch.manual_seed(seed)
    model = EncoderDecoder(tokenizer, feature_width=6, width=16, num_layers=2, num_heads=2, max_length=24)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.5)
    return model.eval()


@pytest.fixture
def captioner(tokenizer):
    return built(tokenizer)


@pytest.fixture
def context(captioner):
    features = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    return captioner.encode(CaptionBatch(["a", "b", "c", "d"], features=features))


def naive_scores(captioner, context, tokens, scale):
    """Two whole passes over the tokens so far, and the paper's formula with a loop's patience."""
    mask = torch.ones_like(tokens, dtype=torch.bool)
    zeros = type(context)(torch.zeros_like(context.states), context.mask, context.keys)
    conditional = captioner(context, tokens, mask)[:, :, -1].log_softmax(-1)
    unconditional = captioner(zeros, tokens, mask)[:, :, -1].log_softmax(-1)
    return (unconditional + scale * (conditional - unconditional)).log_softmax(-1)


def test_greedy_captions_are_those_of_two_whole_passes_a_token(captioner, context):
    written = captioner.generate(context, Decoding(max_length=8, guide=Guide(2.0)))
    tokens = written.tokens[:, :, :1]
    for place in range(1, written.tokens.shape[-1]):
        scores = naive_scores(captioner, context, tokens, 2.0)
        alive = written.mask[:, 0, place]
        assert torch.equal(scores.argmax(-1)[alive], written.tokens[alive][..., place])
        expected = scores.gather(-1, written.tokens[..., place, None]).squeeze(-1)
        torch.testing.assert_close(written.logprobs[alive][..., place - 1], expected[alive], atol=2e-5, rtol=0)
        tokens = written.tokens[..., : place + 1]
    assert not torch.equal(captioner.generate(context, Decoding(max_length=8)).tokens[..., :4], written.tokens[..., :4])


def test_beams_are_scored_by_the_guided_distribution(captioner, context):
    written = captioner.generate(context, Decoding("beam", max_length=6, num_beams=3, guide=Guide(1.5)), 3)
    for place in range(1, written.tokens.shape[-1]):
        scores = naive_scores(captioner, context, written.tokens[..., :place], 1.5)
        expected = scores.gather(-1, written.tokens[..., place, None]).squeeze(-1)
        alive = written.mask[..., place]
        torch.testing.assert_close(written.logprobs[..., place - 1][alive], expected[alive], atol=2e-5, rtol=0)
    best_first = (written.logprobs.sum(-1) / written.mask[..., 1:].sum(-1)).diff(dim=-1)
    assert (best_first <= 1e-5).all()


def test_the_widest_beam_finds_the_best_pair_of_tokens(captioner, context):
    """All first tokens are kept: the best caption of two tokens is that of an exhaustive search."""
    size = captioner.vocab_size
    decoding = Decoding("beam", max_length=2, num_beams=size, guide=Guide(2.0), length_penalty=0.0)
    found = captioner.generate(context, decoding).logprobs.sum(-1).squeeze(1)
    bos = torch.full((4, 1, 1), captioner.tokenizer.bos_token_id)
    first = naive_scores(captioner, context, bos, 2.0).squeeze(1)
    pairs = torch.stack(
        [
            naive_scores(captioner, context, torch.cat([bos, torch.full_like(bos, t)], -1), 2.0).squeeze(1)
            for t in range(size)
        ],
        dim=1,
    )
    eos = captioner.tokenizer.eos_token_id
    total = first[:, :, None] + pairs
    total[:, eos] = first[:, eos, None]
    torch.testing.assert_close(found, total.flatten(1).amax(-1), atol=2e-5, rtol=0)


def test_rules_of_length_and_repetition_hold_after_guidance(captioner, context):
    decoding = Decoding(max_length=12, min_length=6, no_repeat_ngram_size=2, guide=Guide(4.0))
    written = captioner.generate(context, decoding)
    for tokens, mask in zip(written.tokens[:, 0], written.mask[:, 0], strict=True):
        words = tokens[mask][1:].tolist()
        assert len(words) > 6
        pairs = list(itertools.pairwise(words))
        assert len(pairs) == len(set(pairs))


def test_samples_are_drawn_from_the_guided_distribution(captioner, context):
    written = captioner.generate(context, Decoding("sample", max_length=1, guide=Guide(2.0)), 2_000)
    bos = torch.full((4, 1, 1), captioner.tokenizer.bos_token_id)
    expected = naive_scores(captioner, context, bos, 2.0).squeeze(1).exp()
    shares = torch.stack([torch.bincount(row, minlength=captioner.vocab_size) for row in written.tokens[..., 1]]) / 2000
    # Five standard deviations of a share of 2,000 draws.
    assert ((shares - expected).abs() < 5 * (expected * (1 - expected) / 2000).sqrt() + 1e-4).all()
    plain = naive_scores(captioner, context, bos, 1.0).squeeze(1).exp()
    assert ((shares - plain).abs() > 0.05).any()


def test_a_policy_does_not_learn_from_guided_captions():
    with pytest.raises(UsageError, match=r"log-probabilities those of guided decoding are not; got rollout\.guide"):
        SelfCritical(rollout=Decoding("sample", guide=Guide()))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_scales_that_are_no_positive_number_are_refused(scale):
    with pytest.raises(UsageError, match="scale"):
        Guide(scale)


def test_a_language_model_that_was_not_loaded_is_missed(captioner, context):
    with pytest.raises(UsageError, match=r"language_model=lm: expected task=evaluate or task=caption"):
        captioner.generate(context, lm_decoding())


# -- language models


def lm_decoding(method="greedy", beams=1, image=1.0, no_image=1.0):
    return Decoding(method, max_length=8, num_beams=beams, guide=LanguageModelGuide("lm", image, no_image))


@pytest.mark.parametrize(("method", "beams", "num"), [("greedy", 1, 1), ("sample", 1, 3), ("beam", 3, 2)])
def test_a_captioner_without_an_image_guides(tokenizer, captioner, context, method, beams, num):
    other = built(tokenizer, seed=2)
    captioner.language_model = CaptionerWithoutImage(other)
    written = captioner.generate(context, lm_decoding(method, beams, 2.0, 0.5), num)
    zeros = context.without_image()
    missing = other.null_context(4, "cpu")
    mask = torch.ones_like(written.mask)
    readings = [
        model(given, written.tokens, mask)[:, :, :-1].log_softmax(-1)
        for model, given in ((captioner, context), (captioner, zeros), (other, missing))
    ]
    scores = (2.0 * readings[0] - 0.5 * readings[1] + readings[2]).log_softmax(-1)
    expected = scores.gather(-1, written.tokens[..., 1:, None]).squeeze(-1)
    real = written.mask[..., 1:]
    torch.testing.assert_close(written.logprobs[real], expected[real], atol=3e-5, rtol=0)


class Breaking(nn.Module):
    """Gives "w0", a line break and the end a third each, whatever was read."""

    def __init__(self, ids):
        super().__init__()
        self.ids = ids

    def forward(self, input_ids, use_cache, **cache):
        for kept in cache.values():
            kept.update(torch.zeros(*input_ids.shape, 1)[:, None], torch.zeros(*input_ids.shape, 1)[:, None], 0)
        logits = torch.full((*input_ids.shape, 20), -math.inf)
        logits[..., self.ids] = 0.0
        return type("Out", (), {"logits": logits})


class Spelled:
    """A tokenizer of 20 tokens, of which 7 is a line break."""

    bos_token_id, eos_token_id = 1, 2

    def __len__(self):
        return 20

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [5] * len(text.split())}

    def batch_decode(self, rows):
        return ["\n\n" if row == [7] else f"w{row[0]}" for row in rows]


def test_what_goes_to_line_breaks_goes_to_the_end(context):
    model = CausalLanguageModel(Breaking([3, 7, 2]), Spelled(), "one caption\n\nanother")
    logprobs = model.step(context, torch.full((4, 1), 1), model.start(context, 8)).exp()
    assert logprobs[0, [3, 7, 2]].tolist() == pytest.approx([1 / 3, 0.0, 2 / 3])


@pytest.mark.parametrize("prompt", ["", "w1 w2\n\nw3 w1"])
@pytest.mark.parametrize(("method", "beams", "num"), [("greedy", 1, 1), ("sample", 1, 2), ("beam", 3, 3)])
def test_a_causal_language_model_goes_on_from_its_prompt(tokenizer, captioner, context, prompt, method, beams, num):
    torch.manual_seed(3)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=48)
    language = AutoModelForCausalLM.from_config(config).eval()
    for parameter in language.parameters():
        parameter.data.normal_(std=0.4)
    captioner.prompt = "w5"
    captioner.language_model = CausalLanguageModel(language, tokenizer, prompt)
    written = captioner.generate(context, lm_decoding(method, beams), num)
    given = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    rows = written.tokens.flatten(0, 1)
    bos = rows[:, :1]
    whole = torch.cat([bos, torch.tensor(given, dtype=torch.long).expand(len(rows), -1), rows[:, 1:]], dim=1)
    language_scores = language(whole).logits[:, len(given) : -1].log_softmax(-1).unflatten(0, written.tokens.shape[:2])
    mask = torch.ones_like(written.mask)
    conditional, unconditional = (
        captioner(given, written.tokens, mask)[:, :, :-1].log_softmax(-1)
        for given in (context, context.without_image())
    )
    scores = (conditional - unconditional + language_scores).log_softmax(-1)
    expected = scores.gather(-1, written.tokens[..., 1:, None]).squeeze(-1)
    real = written.mask[..., 1:].clone()
    real[..., 0] = False  # the prompt's word
    torch.testing.assert_close(written.logprobs[real], expected[real], atol=3e-5, rtol=0)


def test_another_tokenizer_is_refused_by_name(captioner):
    with pytest.raises(UsageError, match=r"lm: expected the captioner's tokenizer .*16 tokens.*5 tokens"):
        check_same_tokens(captioner, "lm", word_tokenizer(["other"]))
    check_same_tokens(captioner, "lm", word_tokenizer([" ".join(f"w{i}" for i in range(12))]))


def test_a_prompt_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"decoding\.guide\.prompt=.*none\.txt: expected a text file"):
        read_prompt(str(tmp_path / "none.txt"))
    assert read_prompt(None) == ""


def test_the_wrapper_owns_nothing_of_the_captioner(captioner):
    before = set(captioner.state_dict())
    captioner.language_model = CaptionerWithoutImage(built(captioner.tokenizer, seed=2))
    GuidedCaptioner(captioner, LanguageModelGuide("lm"), captioner.language_model)
    assert set(captioner.state_dict()) == before
