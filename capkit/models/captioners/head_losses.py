"""Losses of tokens under a linear head, in chunks whose logits are computed again in the backward pass.

T tokens, D width, V vocabulary, P = V rounded up to a multiple of 64, C tokens of a chunk.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from capkit.decoding.cast import HEAD_MULTIPLE, is_sharded
from capkit.decoding.truncation import restrict


def is_plain(head: nn.Module) -> bool:
    """Whether `head_losses` can stand for the module: a linear layer alone, whose weights this process holds."""
    return type(head) is nn.Linear and head.bias is None and not is_sharded(head.weight)


def head_losses(
    hidden: Float[Tensor, "T D"],
    weight: Float[Tensor, "V D"],
    targets: Int[Tensor, " T"],
    chunk_size: int,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
    support: UInt8[Tensor, "T W"] | None = None,
    compiled: bool = False,
) -> Float[Tensor, " T"]:
    """Cross-entropy of each target under softmax(hidden weight^T / temperature), in nats (float32).

    Products are in autocast's type where it is on, sums over the vocabulary in float32. The weight is cast once for all
    chunks. Under autocast it gets rows of zeros up to a multiple of 64, which the kernels of a GPU need to be fast:
    they have no probability and no gradient. `support` restricts the softmax to its tokens. `compiled`: passes over the
    logits are fused into one kernel each.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    settings = (dtype, chunk_size, temperature, label_smoothing, compiled and support is None)
    return _HeadLosses.apply(hidden, weight, targets, support, settings)


class _HeadLosses(torch.autograd.Function):
    """The gradient is linear in the logits' own, g_t (softmax - target): nothing of size (T, V) outlives a chunk."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, support: Tensor | None, settings: Any
    ) -> Tensor:
        dtype, chunk_size, temperature, label_smoothing, compiled = settings
        ctx.settings, ctx.vocab_size, ctx.types = settings, len(weight), (hidden.dtype, weight.dtype)
        losses_of = _fused(_losses) if compiled else _losses
        with torch.autocast(hidden.device.type, enabled=False):
            cast = _padded(weight.to(dtype), 1 if dtype == torch.float32 else HEAD_MULTIPLE)
            rows = hidden.to(dtype)
            losses = [
                losses_of(
                    _logits(rows[some], cast, len(weight), temperature, support, some),
                    targets[some],
                    len(weight),
                    label_smoothing,
                )
                for some in _chunks(len(rows), chunk_size)
            ]
        total = torch.cat(losses) if losses else hidden.new_zeros(0, dtype=torch.float32)
        ctx.save_for_backward(rows, cast, targets, total, support)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        rows, cast, targets, losses, support = ctx.saved_tensors
        dtype, chunk_size, temperature, label_smoothing, compiled = ctx.settings
        slopes_of = _fused(_slopes) if compiled else _slopes
        of_hidden = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(cast, dtype=ctx.types[1]) if ctx.needs_input_grad[1] else None
        scale = gradient / temperature
        for some in _chunks(len(rows), chunk_size):
            logits = _logits(rows[some], cast, ctx.vocab_size, temperature, support, some)
            slopes = slopes_of(logits, targets[some], losses[some], scale[some], ctx.vocab_size, label_smoothing)
            slopes = slopes.to(dtype)
            if of_hidden is not None:
                torch.mm(slopes, cast, out=of_hidden[some])
            if of_weight is not None:
                of_weight += slopes.T @ rows[some]
        return (
            None if of_hidden is None else of_hidden.to(ctx.types[0]),
            None if of_weight is None else of_weight[: ctx.vocab_size],
            None,
            None,
            None,
        )


def _losses(
    logits: Float[Tensor, "C P"], targets: Int[Tensor, " C"], vocab_size: int, label_smoothing: float
) -> Float[Tensor, " C"]:
    logprobs = nn.functional.log_softmax(logits, -1, dtype=torch.float32)
    found = (label_smoothing - 1) * logprobs.gather(1, targets[:, None])[:, 0]
    if label_smoothing:
        found = found - label_smoothing * logprobs[:, :vocab_size].mean(-1)
    return found


def _slopes(
    logits: Float[Tensor, "C P"],
    targets: Int[Tensor, " C"],
    losses: Float[Tensor, " C"],
    scale: Float[Tensor, " C"],
    vocab_size: int,
    label_smoothing: float,
) -> Float[Tensor, "C P"]:
    """Gradient of scale x loss in the logits; of the padding 0, since softmax gives it nothing."""
    if label_smoothing:
        slopes = torch.softmax(logits, -1, dtype=torch.float32)
        slopes[:, :vocab_size] -= label_smoothing / vocab_size
        slopes.scatter_add_(1, targets[:, None], slopes.new_full((len(slopes), 1), label_smoothing - 1))
        return (slopes * scale[:, None]).to(logits.dtype)
    # From the float32 loss: 1 - p of a sure token would be lost in the rounding of p to 16 bits.
    of_target = scale * torch.expm1(-losses)
    slopes = torch.softmax(logits, -1).mul_(scale[:, None])
    return slopes.scatter_(1, targets[:, None], of_target.to(slopes.dtype)[:, None])


@functools.cache
def _fused(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compiled for any number of rows."""
    return torch.compile(function, dynamic=True)


def _padded(weight: Tensor, multiple: int) -> Tensor:
    return nn.functional.pad(weight, (0, 0, 0, -len(weight) % multiple))


def _chunks(num_rows: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]


def _logits(
    rows: Float[Tensor, "C D"],
    weight: Float[Tensor, "P D"],
    vocab_size: int,
    temperature: float,
    support: UInt8[Tensor, "T W"] | None,
    some: slice,
) -> Float[Tensor, "C P"]:
    """Logits of a chunk over the temperature; minus infinity in the padding and outside the support."""
    logits = rows @ weight.T
    if temperature != 1.0 or support is not None:
        logits = logits.float() / temperature
    logits[:, vocab_size:] = -torch.inf
    if support is not None:
        allowed = support[some]
        logits = torch.cat([restrict(logits[:, :vocab_size], allowed), logits[:, vocab_size:]], dim=1)
    return logits
