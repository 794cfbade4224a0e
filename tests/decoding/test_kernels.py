"""Triton's kernels against plain torch: on a GPU, or by Triton's interpreter on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from capkit.decoding import engine, fused
from capkit.decoding.cache import PreallocatedLayer
from capkit.decoding.config import Decoding
from capkit.decoding.sampling import FusedChooser, TokenChooser, inverse_cdf
from capkit.utils import rng

HAS_GPU, INTERPRETS = torch.cuda.is_available(), os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if HAS_GPU else "cpu"
runs_kernels = pytest.mark.skipif(not (HAS_GPU or INTERPRETS), reason="needs a GPU or Triton's interpreter")
TYPES = [torch.float32, torch.bfloat16] if HAS_GPU else [torch.float32]
ROUNDING = {torch.float32: {"atol": 3e-6, "rtol": 1e-5}, torch.bfloat16: {"atol": 2e-2, "rtol": 1e-2}}


def normal(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape))).to(dtype)


@pytest.mark.integration
@pytest.mark.skipif(HAS_GPU or INTERPRETS, reason="the tests below run as they are")
def test_by_the_interpreter():
    pytest.importorskip("triton")
    of_the_head = Path(__file__).parents[1] / "models/captioners/test_head_kernels.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, str(of_the_head)]
    run = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0 and " passed" in run.stdout, run.stdout[-3000:]


@runs_kernels
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("has_change", [True, False])
def test_sum_and_its_layer_norm(dtype, has_change):
    from capkit.decoding import kernels

    norm = nn.LayerNorm(48).requires_grad_(False)
    norm.weight.copy_(normal(48)), norm.bias.copy_(normal(48, seed=1))
    x, change = 3 * normal(5, 48) + 1, normal(5, 48, dtype=dtype) if has_change else None
    total, normed = fused.add_norm(x, change, norm)
    moved = None if change is None else change.to(DEVICE)
    found = kernels.add_norm(x.to(DEVICE), moved, norm.weight.to(DEVICE), norm.bias.to(DEVICE), norm.eps, dtype)
    torch.testing.assert_close(found[0].cpu(), total, **ROUNDING[torch.float32])
    torch.testing.assert_close(found[1].cpu(), normed.to(dtype), **ROUNDING[dtype])


@runs_kernels
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("past", [1, 16, 17, 35])
@pytest.mark.parametrize("width", [16, 24])
def test_attention_to_the_cache(dtype, past, width):
    from capkit.decoding import kernels

    rows, heads, capacity = 6, 3, 40
    layer = PreallocatedLayer(capacity)
    layer.update(*(normal(rows, heads, past, width, dtype=dtype, seed=seed) for seed in (1, 2)))
    new = normal(rows, 3 * heads * width, dtype=dtype)
    buffers = [buffer.clone().to(DEVICE) for buffer in layer.buffers]
    for buffer in buffers:  # what was never written is not read
        buffer[:, :, past:] = torch.nan
    found = kernels.attend_self(new.to(DEVICE), *buffers, past, width**-0.5)
    expected = fused.attend_self(new, layer, width**-0.5)
    torch.testing.assert_close(found.cpu(), expected, **ROUNDING[dtype])
    for buffer, written in zip(buffers, layer.buffers, strict=True):
        assert torch.equal(buffer[:, :, : past + 1].cpu(), written[:, :, : past + 1])


@runs_kernels
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("captions", [1, 5, 18])
@pytest.mark.parametrize("tokens", [3, 70])
def test_attention_to_the_image(dtype, captions, tokens):
    from capkit.decoding import kernels

    images, heads, width = 3, 2, 24
    both = normal(images, tokens, 2 * heads * width, dtype=dtype)
    keys, values = (part.unflatten(-1, (heads, width)).transpose(1, 2) for part in both.chunk(2, -1))
    query = normal(images * captions, heads * width, dtype=dtype)
    found = kernels.attend_image(query.to(DEVICE), keys.to(DEVICE), values.to(DEVICE), width**-0.5)
    torch.testing.assert_close(found.cpu(), fused.attend_image(query, keys, values, width**-0.5), **ROUNDING[dtype])


def padded(rows, captions, vocabulary, scale=3.0):
    """Logits of a padded head, as a view of the vocabulary's."""
    return (scale * normal(rows, captions, vocabulary + 24))[..., :vocabulary]


@runs_kernels
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("vocabulary", [40, 1000, 1024])
def test_draws_and_the_best_token(temperature, vocabulary):
    from capkit.decoding import kernels

    logits, ids = padded(4, 6, vocabulary), torch.arange(20).view(4, 5)
    decoding = Decoding("sample", temperature=temperature)
    tokens = torch.zeros(20, 1, dtype=torch.long)
    sample, best = TokenChooser(decoding, 1, ids.flatten()), TokenChooser(decoding, 1, None)
    expected = torch.cat(
        [sample(logits[:, :5].flatten(0, 1), tokens).view(4, 5), best(logits[:, 5], tokens[:4])[:, None]], 1
    )
    logprobs = torch.cat([sample.logprobs[0].view(4, 5), best.logprobs[0][:, None]], 1)
    uniforms = torch.cat([rng.uniform(ids, 0), torch.full((4, 1), -1.0, dtype=torch.float64)], 1)
    chosen, found = kernels.choose(logits.to(DEVICE), uniforms.to(DEVICE), temperature)
    assert torch.equal(chosen.cpu(), expected)
    torch.testing.assert_close(found.cpu(), logprobs, atol=2e-6, rtol=1e-5)


@runs_kernels
def test_a_rollouts_chooser_draws_at_each_step_what_the_plain_one_draws():
    ids = torch.tensor([[3, 9], [2**62, 5]])
    decoding = Decoding("sample", max_length=3, temperature=0.8)
    plan = engine.Plan(decoding, 2, True, (1,), 2)
    given = engine.Given.of(plan, ids)
    plain, fast = engine._RowChooser(plan, given), FusedChooser(decoding, ids.to(DEVICE), with_greedy=True)
    tokens = torch.zeros(2, 3, 1, dtype=torch.long)
    for step in range(3):
        logits = padded(2, 3, 300 + step)
        expected, logprobs, _ = plain(logits, tokens)
        chosen, found, supports = fast(logits.to(DEVICE), tokens.to(DEVICE))
        assert torch.equal(chosen.cpu(), expected) and not supports
        torch.testing.assert_close(found.cpu(), logprobs, atol=2e-6, rtol=1e-5)


@runs_kernels
def test_draws_at_the_ends_have_positive_probability():
    """Uniforms of 0 and just below 1, with impossible tokens at both ends and a whole impossible block."""
    from capkit.decoding import kernels

    logits = padded(2, 3, 1000)
    logits[..., :300], logits[..., 700:] = -torch.inf, -torch.inf
    logits = logits[:, :1].expand(-1, 3, -1)
    uniforms = torch.tensor([0.0, 1 - 2**-53, 0.5], dtype=torch.float64).expand(2, -1)
    chosen, logprobs = kernels.choose(logits.to(DEVICE), uniforms.contiguous().to(DEVICE), 1.0)
    expected = inverse_cdf(logits.flatten(0, 1).softmax(-1), uniforms.flatten()).view(2, 3)
    assert torch.equal(chosen.cpu(), expected) and bool(logprobs.isfinite().all())
    assert chosen[:, 0].tolist() == [300, 300] and chosen[:, 1].tolist() == [699, 699]


@runs_kernels
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_rows_of_nan_give_a_token_of_the_vocabulary():
    from capkit.decoding import kernels

    uniforms = torch.tensor([[0.3, -1.0], [0.9, -1.0]], dtype=torch.float64).to(DEVICE)
    chosen, _ = kernels.choose(torch.full((2, 2, 300), torch.nan).to(DEVICE), uniforms, 1.0)
    assert bool(((chosen >= 0) & (chosen < 300)).all())
