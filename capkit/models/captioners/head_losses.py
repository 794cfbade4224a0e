"""Losses of tokens under a linear head, in chunks whose logits are computed again in the backward pass.

A single chunk keeps its logits instead: they take no more memory than they would in the backward pass.

T tokens, D width, V vocabulary, P = V rounded up to a multiple of 64, C tokens of a chunk.
"""

import functools
import warnings
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from capkit.decoding.cast import HEAD_MULTIPLE, is_sharded
from capkit.decoding.fused import has_kernels
from capkit.decoding.truncation import restrict
from capkit.models.products import product


def is_plain(head: nn.Module) -> bool:
    """Whether `head_losses` can stand for the module: a linear layer alone, whose weights this process holds."""
    return type(head) is nn.Linear and head.bias is None and not is_sharded(head.weight)


def by_kernels(hidden: Tensor, support: Tensor | None) -> bool:
    """Whether the passes over the logits are one kernel each, which need no copy of a chunk's logits."""
    if support is not None or hidden.dtype == torch.float64 or not has_kernels(hidden.device):
        return False
    return kernels_agree(hidden.device)


@functools.cache
def kernels_agree(device: torch.device) -> bool:
    """Whether the kernels, as this Triton compiles them for this device, give the plain functions' numbers.

    Tried once a process, on few random logits. If not, a warning says so, and the plain functions stand for them.
    """
    try:
        differences = [number for dtype in (torch.float32, torch.bfloat16) for number in _differences(dtype, device)]
        if all(number < 1 for number in differences):  # not so for NaN, which a maximum might pass over
            return True
        found = f"differ from torch's operations by {differences} times the rounding of their types"
    except Exception as error:  # whatever Triton, its compiler or its driver raise
        found = f"do not run: {error}"
    warnings.warn(
        f"kernels of the head's losses {found} on {device}; torch's operations are used, which take longer; "
        "another version of triton may help",
        stacklevel=2,
    )
    return False


def _differences(dtype: torch.dtype, device: torch.device) -> list[float]:
    """Of kernels and plain functions, over the rounding of the type: losses of some 20 nats, slopes of at most 2."""
    vocab_size, width, generator = 5001, 5056, torch.Generator(device).manual_seed(0)
    logits = (4 * torch.randn(3, width, generator=generator, device=device)).to(dtype)
    logits[:, vocab_size:] = float("-inf")
    targets = torch.tensor([[0, 1], [4097, 1], [5000, 1]], device=device)[:, 0]
    scale = torch.tensor([1.0, -0.5, 2.0], device=device)
    found = []
    for measured, slopes in ((_measured, _slopes), (_kernels().measure, _kernels().to_slopes)):
        losses, nll, sums = measured(logits.clone(), targets, vocab_size, 0.7, 0.1)
        arguments = targets, sums, scale * torch.expm1(-nll), scale, vocab_size, 0.7, 0.1 / vocab_size
        found.append((torch.cat([losses, nll, sums]), slopes(logits.clone(), *arguments).float()))
    off = [float((ours - plain).abs().max()) for plain, ours in zip(*found, strict=True)]
    return [off[0] / 1e-4, off[1] / (1e-5 if dtype == torch.float32 else 2e-2)]


def head_losses(
    hidden: Float[Tensor, "T D"],
    weight: Float[Tensor, "V D"],
    targets: Int[Tensor, " T"],
    chunk_size: int,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
    support: UInt8[Tensor, "T W"] | None = None,
) -> Float[Tensor, " T"]:
    """Cross-entropy of each target under softmax(hidden weight^T / temperature), in nats (float32).

    Products are in autocast's type where it is on, sums over the vocabulary in float32. The weight is cast once for all
    chunks. Under autocast it gets rows of zeros up to a multiple of 64, which the kernels of a GPU need to be fast:
    they have no probability and no gradient. `support` restricts the softmax to its tokens.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    return _HeadLosses.apply(hidden, weight, targets, support, (dtype, chunk_size, temperature, label_smoothing))


class _HeadLosses(torch.autograd.Function):
    """The gradient is linear in the logits' own, g_t (softmax - target): nothing of size (T, V) outlives a chunk."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, support: Tensor | None, settings: Any
    ) -> Tensor:
        dtype, chunk_size, temperature, smoothing = settings
        ctx.settings, ctx.vocab_size, ctx.types = settings, len(weight), (hidden.dtype, weight.dtype)
        chunks = _chunks(len(hidden), chunk_size)
        with torch.autocast(hidden.device.type, enabled=False):
            cast = _padded(weight.to(dtype), 1 if dtype == torch.float32 else HEAD_MULTIPLE)
            rows = hidden.to(dtype)
            found = []
            for some in chunks:
                logits = _logits(rows[some], cast, len(weight), support, some)
                measured = _measured if not by_kernels(rows, support) else _kernels().measure
                found.append(measured(logits, targets[some], len(weight), temperature, smoothing))
        losses, nll, sums = torch.cat(found, dim=1) if found else hidden.new_zeros(3, 0, dtype=torch.float32)
        # For one backward pass, which writes over them: another one computes them again.
        ctx.logits = logits if len(chunks) == 1 and any(ctx.needs_input_grad) else None
        ctx.save_for_backward(rows, cast, targets, nll, sums, support)
        return losses.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        rows, cast, targets, nll, sums, support = ctx.saved_tensors
        dtype, chunk_size, temperature, smoothing = ctx.settings
        kept, ctx.logits = ctx.logits, None
        of_hidden = torch.empty(rows.shape, dtype=ctx.types[0], device=rows.device)
        of_weight = torch.zeros((), dtype=ctx.types[1], device=rows.device).expand(cast.shape)
        scale, floor = gradient / temperature, smoothing / ctx.vocab_size
        # From the loss in float32: 1 - p of a sure token would be lost in the rounding of p to 16 bits.
        of_target = scale * (torch.expm1(-nll) + smoothing - floor)
        for number, some in enumerate(_chunks(len(rows), chunk_size)):
            logits = _logits(rows[some], cast, ctx.vocab_size, support, some) if kept is None else kept
            arguments = targets[some], sums[some], of_target[some], scale[some], ctx.vocab_size, temperature, floor
            slopes = (_slopes if not by_kernels(rows, support) else _kernels().to_slopes)(logits, *arguments).to(dtype)
            if ctx.needs_input_grad[0]:
                of_hidden[some] = product(slopes, cast, ctx.types[0])
            if ctx.needs_input_grad[1]:
                part = product(slopes.T, rows[some], ctx.types[1])
                of_weight = of_weight.add_(part) if number else part
        return (
            of_hidden if ctx.needs_input_grad[0] else None,
            of_weight[: ctx.vocab_size] if ctx.needs_input_grad[1] else None,
            None,
            None,
            None,
        )


def _kernels() -> Any:
    from capkit.models.captioners import head_kernels

    return head_kernels


def _measured(
    logits: Float[Tensor, "C P"], targets: Int[Tensor, " C"], vocab_size: int, temperature: float, smoothing: float
) -> Float[Tensor, "3 C"]:
    """Of each row: the loss with smoothing and without, and the logarithm of the sum over exp(logits / temperature)."""
    scores = logits.float() / temperature
    logprobs = scores.log_softmax(-1)
    nll, chosen = -logprobs.gather(1, targets[:, None])[:, 0], scores.gather(1, targets[:, None])[:, 0]
    losses = nll
    if smoothing:
        losses = (1 - smoothing) * nll - smoothing * logprobs[:, :vocab_size].mean(-1)
    return torch.stack([losses, nll, chosen + nll])


def _slopes(
    logits: Float[Tensor, "C P"],
    targets: Int[Tensor, " C"],
    sums: Float[Tensor, " C"],
    of_target: Float[Tensor, " C"],
    scale: Float[Tensor, " C"],
    vocab_size: int,
    temperature: float,
    floor: float,
) -> Float[Tensor, "C P"]:
    """Gradient of scale x loss in the logits; of the padding 0, since softmax gives it nothing."""
    slopes = (logits.float() / temperature).sub_(sums[:, None]).exp_()
    slopes[:, :vocab_size] -= floor
    return slopes.mul_(scale[:, None]).scatter_(1, targets[:, None], of_target[:, None])


def _padded(weight: Tensor, multiple: int) -> Tensor:
    return nn.functional.pad(weight, (0, 0, 0, -len(weight) % multiple))


def _chunks(num_rows: int, size: int) -> list[slice]:
    """As few as there must be, of equal size but for the last."""
    each = -(-num_rows // max(1, -(-num_rows // size)))
    return [slice(start, min(start + each, num_rows)) for start in range(0, num_rows, max(1, each))]


def _logits(
    rows: Float[Tensor, "C D"],
    weight: Float[Tensor, "P D"],
    vocab_size: int,
    support: UInt8[Tensor, "T W"] | None,
    some: slice,
) -> Float[Tensor, "C P"]:
    """Logits of a chunk; minus infinity in the padding and outside the support."""
    logits = rows @ weight.T
    logits[:, vocab_size:] = -torch.inf
    if support is not None:
        logits[:, :vocab_size] = restrict(logits[:, :vocab_size], support[some])
    return logits
