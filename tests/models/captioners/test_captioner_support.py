"""Log-probabilities of truncated samples, for every captioner: those sampled under, and still there after an update."""

import pytest
import torch

from capkit.decoding.config import Decoding
from capkit.decoding.truncation import unpack

CLOSE = {"atol": 3e-5, "rtol": 1e-4}
TRUNCATED = [
    Decoding("sample", max_length=9, top_k=3, seed=1),
    Decoding("sample", max_length=9, top_p=0.8, temperature=1.3),
    Decoding("sample", max_length=9, min_length=4),
    Decoding("sample", max_length=9, no_repeat_ngram_size=2, temperature=0.7),
    Decoding("sample", max_length=9, min_length=2, top_k=9, top_p=0.9, temperature=0.8),
]


def write(captioner, batch, decoding):
    return captioner.generate(captioner.encode(batch), decoding, 3)


def forced(captioner, batch, samples, decoding, support):
    return captioner.logprobs(captioner.encode(batch), samples.tokens, samples.mask, decoding.temperature, support)


@pytest.mark.parametrize("decoding", TRUNCATED)
def test_sampled_logprobs_are_the_teacher_forced_ones_on_the_support(captioner, batch, decoding):
    samples = write(captioner, batch, decoding)
    torch.testing.assert_close(samples.logprobs, sampled_tokens(captioner, batch, samples, decoding), **CLOSE)
    untruncated = forced(captioner, batch, samples, decoding, None)
    assert (samples.logprobs - untruncated).abs().max() > 1e-3


def test_behind_a_prompt_the_given_tokens_are_finite_and_the_rest_as_sampled(captioner, batch):
    captioner.prompt = "a red circle"
    samples = write(captioner, batch, TRUNCATED[0])
    logprobs = forced(captioner, batch, samples, TRUNCATED[0], samples.support)
    assert logprobs[..., :3].isfinite().all()
    torch.testing.assert_close(samples.logprobs[..., 3:], logprobs[..., 3:], **CLOSE)
    assert (samples.logprobs[..., :3] == 0).all()
    logprobs[..., 3:].sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in captioner.parameters())


def sampled_tokens(captioner, batch, samples, decoding):
    """Teacher-forced on the support, 0 at the tokens of the prompt as in samples."""
    logprobs = forced(captioner, batch, samples, decoding, samples.support)
    return logprobs.masked_fill(samples.logprobs == 0, 0.0)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampling_from_the_whole_distribution_keeps_no_support(captioner, batch, temperature):
    decoding = Decoding("sample", max_length=5, temperature=temperature)
    samples = write(captioner, batch, decoding)
    assert samples.support is None
    torch.testing.assert_close(samples.logprobs, sampled_tokens(captioner, batch, samples, decoding), **CLOSE)


def test_top_k_leaves_k_tokens_and_the_sampled_one_among_them(captioner, batch):
    samples = write(captioner, batch, TRUNCATED[0])
    allowed = unpack(samples.support, captioner.vocab_size)
    written = samples.logprobs < 0
    assert (allowed.sum(-1)[written] == 3).all()
    assert allowed.gather(-1, samples.tokens[..., 1:, None])[..., 0][written].all()


def test_a_moved_policy_stays_finite_on_the_support_where_truncating_anew_does_not(captioner, batch):
    decoding = TRUNCATED[0]
    samples = write(captioner, batch, decoding)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in captioner.parameters():
            parameter += 0.3 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
    moved = forced(captioner, batch, samples, decoding, samples.support)
    assert moved.isfinite().all()
    ratios = (moved - samples.logprobs)[samples.logprobs < 0].exp()
    assert ratios.isfinite().all()
    assert (ratios - 1).abs().max() > 0.05
    logits = captioner(captioner.encode(batch), samples.tokens, samples.mask)[:, :, :-1]
    kth = logits.topk(3).values[..., -1:]
    anew = logits.masked_fill(logits < kth, -torch.inf).log_softmax(-1)
    anew = anew.gather(-1, samples.tokens[..., 1:, None])[..., 0]
    assert anew[samples.logprobs < 0].isinf().any()
