"""Triton's kernels of the head's losses against plain torch: on a GPU, or run by tests/decoding/test_kernels.py."""

import os

import pytest
import torch

from capkit.models.captioners.head_losses import _measured, _slopes, kernels_agree

HAS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if HAS_GPU else "cpu"
VOCAB, WIDTH = 5003, 5056  # two blocks of a kernel, and padding
pytestmark = pytest.mark.skipif(
    not (HAS_GPU or os.environ.get("TRITON_INTERPRET") == "1"), reason="needs a GPU or Triton's interpreter"
)


def problem():
    torch.manual_seed(0)
    logits = 3 * torch.randn(6, WIDTH)
    logits[:, VOCAB:] = -torch.inf
    return logits.to(DEVICE), torch.randint(VOCAB, (6, 1, 2)).to(DEVICE)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("kept_apart", [False, True])
def test_losses_and_slopes_are_the_plain_functions(smoothing, kept_apart):
    """Targets of captions of two tokens are a view with a stride."""
    from capkit.models.captioners import head_kernels

    logits, tokens = problem()
    targets = tokens[..., 1:].flatten() if kept_apart else tokens[..., 1:].flatten().clone()
    assert targets.stride() == ((2,) if kept_apart else (1,))
    plain = _measured(logits, targets, VOCAB, 0.7, smoothing)
    ours = head_kernels.measure(logits, targets, VOCAB, 0.7, smoothing)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-6)
    scale = torch.linspace(-1, 1, 12, device=DEVICE)[::2]
    arguments = targets, plain[2], scale * torch.expm1(-plain[1]), scale, VOCAB, 0.7, smoothing / VOCAB
    expected = _slopes(logits, *arguments)
    found = head_kernels.to_slopes(logits.clone(), *arguments)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-5)
    assert not found[:, VOCAB:].any()


def test_what_is_no_word_has_no_loss():
    from capkit.models.captioners import head_kernels

    logits, tokens = problem()
    targets = tokens[..., 1].flatten()
    targets[1], targets[4] = -100, VOCAB
    losses = head_kernels.measure(logits, targets, VOCAB, 1.0, 0.0)[0]
    assert losses.isnan().tolist() == [False, True, False, False, True, False]


def test_a_process_tries_them_first(recwarn):
    assert kernels_agree(torch.device(DEVICE)) and not recwarn
