"""Losses of a linear head in chunks against autograd's own, forward and gradient."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from capkit.decoding.truncation import pack, restrict
from capkit.models.captioners import head_losses as of_head
from capkit.models.captioners import logprobs
from capkit.models.captioners.head_losses import head_losses, is_plain

WIDTH, VOCAB = 6, 11
CHUNKS = [1, 4, 100]


def problem(num_rows=7, scale=1.0):
    torch.manual_seed(num_rows)
    hidden = torch.randn(num_rows, WIDTH, requires_grad=True)
    weight = (scale * torch.randn(VOCAB, WIDTH)).requires_grad_()
    return hidden, weight, torch.randint(VOCAB, (num_rows,))


def gradients(losses, *inputs):
    weights = torch.linspace(-0.5, 1.5, losses.numel()).reshape(losses.shape)
    return torch.autograd.grad((losses * weights).sum(), inputs)


def off_by(ours, theirs):
    ours, theirs = ours.detach().double(), theirs.detach().double()
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_losses_equal_cross_entropy_forward_and_gradient(chunk_size, smoothing, temperature):
    hidden, weight, targets = problem()
    ours = head_losses(hidden, weight, targets, chunk_size, temperature, smoothing)
    logits = hidden @ weight.T / temperature
    naive = nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(ours, naive)
    for one, other in zip(gradients(ours, hidden, weight), gradients(naive, hidden, weight), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_a_second_backward_pass_computes_logits_that_the_first_wrote_over_again(monkeypatch):
    plain = of_head._slopes
    monkeypatch.setattr(of_head, "_slopes", lambda logits, *given: logits.copy_(plain(logits, *given)))  # as kernels do
    hidden, weight, targets = problem()
    losses = head_losses(hidden, weight, targets, 100)
    first = torch.autograd.grad(losses.sum(), [hidden, weight], retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(losses.sum(), [hidden, weight]), strict=True):
        assert torch.equal(one, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.2}, {"temperature": 0.7}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk_size", [3, 100])
def test_kernels_of_a_gpu_give_the_losses_and_gradients_of_a_cpu(settings, dtype, chunk_size):
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(10, 64), torch.randn(5003, 64), torch.randint(5003, (10,))
    found = []
    for device in ("cpu", "cuda"):
        inputs = [value.to(device).requires_grad_() for value in (hidden.to(dtype).float(), weight.to(dtype).float())]
        with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
            losses = head_losses(*inputs, targets.to(device), chunk_size, **settings)
        slopes = torch.linspace(-0.5, 1.5, 10, device=device)
        found.append([losses, *torch.autograd.grad((losses * slopes).sum(), inputs)])
    for cpu, gpu in zip(*found, strict=True):
        assert off_by(gpu.cpu(), cpu) < (1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("off", [1e-3, float("nan")])
@pytest.mark.parametrize("wrong", [None, "measure", "to_slopes", "error"])
def test_kernels_that_give_other_numbers_are_told_and_not_used(wrong, off, monkeypatch):
    def kernel(plain, name):
        def run(*given):
            if wrong == "error":
                raise RuntimeError("no compiler")
            return plain(*given) + (off if wrong == name else 0)

        return run

    kernels = SimpleNamespace(
        measure=kernel(of_head._measured, "measure"), to_slopes=kernel(of_head._slopes, "to_slopes")
    )
    monkeypatch.setattr(of_head, "_kernels", lambda: kernels)
    monkeypatch.setattr(of_head, "has_kernels", lambda device: True)
    of_head.kernels_agree.cache_clear()
    told = {"error": "do not run: no compiler"}.get(wrong, "differ from torch's operations")
    with pytest.warns(UserWarning, match=told) if wrong else nullcontext():
        assert of_head.by_kernels(torch.zeros(1), None) is (wrong is None)
    support = torch.zeros(1, 1)
    assert not of_head.by_kernels(torch.zeros(1), support) and not of_head.by_kernels(torch.zeros(1).double(), None)
    of_head.kernels_agree.cache_clear()


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_a_support_restricts_the_softmax(chunk_size):
    hidden, weight, targets = problem()
    allowed = torch.rand(len(targets), VOCAB) < 0.5
    allowed[torch.arange(len(targets)), targets] = True
    ours = head_losses(hidden, weight, targets, chunk_size, 0.7, support=pack(allowed))
    logits = restrict(hidden @ weight.T / 0.7, pack(allowed))
    naive = nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(ours, naive)
    for one, other in zip(gradients(ours, hidden, weight), gradients(naive, hidden, weight), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.2}, {"temperature": 0.7}])
def test_the_padding_of_autocast_has_no_probability_and_no_gradient(settings):
    """In bfloat16 with rows of zeros up to 64: near float64 over the 11 tokens alone, as a plain bfloat16 head is.

    With probability on the 53 rows of zeros the loss would be off by nats.
    """
    hidden, weight, targets = problem(40)
    with torch.autocast("cpu", torch.bfloat16):
        ours = head_losses(hidden, weight, targets, 16, **settings)
    assert ours.dtype == torch.float32
    wide, wide_weight = (x.detach().bfloat16().double().requires_grad_() for x in (hidden, weight))
    logits = wide @ wide_weight.T / settings.get("temperature", 1.0)
    smoothing = settings.get("label_smoothing", 0.0)
    naive = nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    assert off_by(ours, naive) < 5e-3
    for one, other in zip(gradients(ours, hidden, weight), gradients(naive, wide, wide_weight), strict=True):
        assert one.dtype == torch.float32 and one.shape == other.shape
        assert off_by(one, other) < 1e-2


def test_a_sure_token_keeps_its_small_gradient_in_bfloat16():
    """p of the targets is .993 to .9999; 1 - p rounded to bfloat16 through p would be 0 or off by half and more."""
    hidden = torch.eye(4, WIDTH).mul(torch.tensor([6.0, 7.0, 8.0, 11.0])[:, None]).requires_grad_()
    weight = torch.eye(VOCAB, WIDTH).requires_grad_()
    targets = torch.arange(4)
    with torch.autocast("cpu", torch.bfloat16):
        (ours,) = torch.autograd.grad(head_losses(hidden, weight, targets, 4).sum(), weight)
    (naive,) = torch.autograd.grad(
        nn.functional.cross_entropy(hidden.double() @ weight.double().T, targets, reduction="sum"), weight
    )
    for place in range(4):
        assert float(ours[place, place]) == pytest.approx(float(naive[place, place]), rel=0.02)


def test_a_frozen_head_passes_the_gradient_on_and_has_none():
    hidden, weight, targets = problem()
    losses = head_losses(hidden, weight.detach(), targets, 4)
    naive = nn.functional.cross_entropy(hidden @ weight.detach().T, targets, reduction="none")
    torch.testing.assert_close(gradients(losses, hidden)[0], gradients(naive, hidden)[0])
    assert not head_losses(hidden.detach(), weight.detach(), targets, 4).requires_grad


def test_only_a_bare_linear_layer_is_replaced():
    assert is_plain(nn.Linear(2, 3, bias=False))
    sharded = nn.Linear(2, 3, bias=False)
    sharded.weight.ds_id = 0
    for head in (nn.Linear(2, 3), nn.Sequential(nn.Linear(2, 3, bias=False)), sharded):
        assert not is_plain(head)


@pytest.mark.parametrize("with_support", [False, True])
def test_log_probabilities_of_a_gpu_equal_those_of_a_cpu(with_support, monkeypatch):
    """All positions and a mask, against the real positions alone; an empty support at padding makes no NaN."""
    torch.manual_seed(0)
    hidden, head = torch.randn(3, 2, 5, WIDTH, requires_grad=True), nn.Linear(WIDTH, VOCAB, bias=False)
    mask = torch.rand(3, 2, 5) < 0.6
    mask[0] = False
    allowed = (torch.rand(3, 2, 5, VOCAB) < 0.5) & mask[..., None]
    targets = torch.where(mask, allowed.float().argmax(-1) if with_support else torch.randint(VOCAB, mask.shape), 0)
    if with_support:
        allowed[..., 0] |= mask & ~allowed.any(-1)
    support = pack(allowed) if with_support else None
    found = []
    for fast in (False, True):
        monkeypatch.setattr(logprobs, "_by_head_losses", lambda hidden, head, fast=fast: fast)
        values = [
            logprobs.chunked_logprobs(hidden, head, targets, mask, VOCAB, 0.7, 4 * VOCAB, support),
            logprobs.chunked_token_losses(hidden, head, targets, mask, VOCAB, 0.1, 4 * VOCAB),
        ]
        found.append([*values, *(g for value in values for g in gradients(value, hidden, head.weight))])
    for ours, theirs in zip(found[1], found[0], strict=True):
        assert torch.isfinite(theirs).all()
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
