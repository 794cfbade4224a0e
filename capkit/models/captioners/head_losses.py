"""Losses of tokens under a linear head, in chunks whose logits are computed again in the backward pass.

T tokens, D width, V vocabulary, P = V rounded up to a multiple of 64, C tokens of a chunk.
"""

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
) -> Float[Tensor, " T"]:
    """Cross-entropy of each target under softmax(hidden weight^T / temperature), in nats (float32).

    Products are in autocast's type where it is on, sums over the vocabulary in float32. The weight is cast once for all
    chunks. Under autocast it gets rows of zeros up to a multiple of 64, which the kernels of a GPU need to be fast:
    they have no probability and no gradient. `support` restricts the softmax to its tokens.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    settings = (dtype, chunk_size, temperature, label_smoothing)
    return _HeadLosses.apply(hidden, weight, targets, support, settings)


class _HeadLosses(torch.autograd.Function):
    """The gradient is linear in the logits' own, g_t (softmax - target): nothing of size (T, V) outlives a chunk."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, support: Tensor | None, settings: Any
    ) -> Tensor:
        dtype, chunk_size, temperature, label_smoothing = settings
        ctx.settings, ctx.vocab_size, ctx.types = settings, len(weight), (hidden.dtype, weight.dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            cast = _padded(weight.to(dtype), 1 if dtype == torch.float32 else HEAD_MULTIPLE)
            rows = hidden.to(dtype)
            losses = []
            for some in _chunks(len(rows), chunk_size):
                logits = _logits(rows[some], cast, len(weight), temperature, support, some)
                logprobs = nn.functional.log_softmax(logits, -1, dtype=torch.float32)
                found = (label_smoothing - 1) * logprobs.gather(1, targets[some, None])[:, 0]
                if label_smoothing:
                    found -= label_smoothing * logprobs[:, : len(weight)].mean(-1)
                losses.append(found)
        total = torch.cat(losses) if losses else hidden.new_zeros(0, dtype=torch.float32)
        ctx.save_for_backward(rows, cast, targets, total, support)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        rows, cast, targets, losses, support = ctx.saved_tensors
        dtype, chunk_size, temperature, label_smoothing = ctx.settings
        of_hidden = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(cast, dtype=ctx.types[1]) if ctx.needs_input_grad[1] else None
        scale = gradient / temperature
        for some in _chunks(len(rows), chunk_size):
            logits = _logits(rows[some], cast, ctx.vocab_size, temperature, support, some)
            if label_smoothing:
                slopes = torch.softmax(logits, -1, dtype=torch.float32)
                slopes[:, : ctx.vocab_size] -= label_smoothing / ctx.vocab_size
                slopes.scatter_add_(1, targets[some, None], slopes.new_full((len(slopes), 1), label_smoothing - 1))
                slopes *= scale[some, None]
            else:
                slopes = torch.softmax(logits, -1)
                slopes.mul_(scale[some, None])
                # From the float32 loss: 1 - p of a sure token would be lost in the rounding of p to 16 bits.
                of_target = scale[some] * torch.expm1(-losses[some])
                slopes.scatter_(1, targets[some, None], of_target.to(slopes.dtype)[:, None])
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
