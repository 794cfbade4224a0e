"""Log-probabilities and losses of given tokens, in chunks, so that all (B K L V) logits are never in memory."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from capkit.decoding.fused import compute_type
from capkit.decoding.truncation import restrict
from capkit.models.captioners.head_losses import by_kernels, head_losses, is_plain

CHUNK_ELEMENTS = 2**26  # logits in memory at a time: 256 MiB in float32
KERNEL_BYTES = 2**30  # of logits at a time where kernels read them without copies: large products are faster


def _by_head_losses(hidden: Tensor, head: nn.Module) -> bool:
    """Whether `head_losses` computes them, at all positions: picking the real ones would wait for a GPU."""
    return hidden.is_cuda and is_plain(head)


def _at_all(
    hidden: Tensor, head: nn.Module, targets: Tensor, mask: Tensor, chunk_elements: int, **settings: Any
) -> Float[Tensor, "*batch L"]:
    """`head_losses` at all positions, 0 where the mask is False."""
    weight = cast(nn.Linear, head).weight
    if by_kernels(hidden, settings.get("support")):
        chunk_elements = KERNEL_BYTES // compute_type(hidden).itemsize
    size = max(1, chunk_elements // len(weight))
    losses = head_losses(hidden.flatten(0, -2), weight, targets.flatten(), size, **settings)
    return losses.view(mask.shape).masked_fill(~mask, 0.0)


def _over_positions(
    inputs: Sequence[Tensor],
    mask: Bool[Tensor, "*batch L"],
    values: Callable[..., Tensor],
    vocab_size: int,
    chunk_elements: int,
) -> Float[Tensor, "*batch L"]:
    """Apply `values` at the positions where `mask` is True, in chunks that are recomputed in the backward pass."""
    rows = [tensor[mask] for tensor in inputs]
    size = max(1, chunk_elements // vocab_size)
    if len(rows[0]) <= size:  # also without any position: the head must stay in the graph for DDP
        flat = values(*rows)
    else:
        chunks = zip(*(tensor.split(size) for tensor in rows), strict=True)
        flat = torch.cat([checkpoint(values, *chunk, use_reentrant=False) for chunk in chunks])
    return torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)


def chunked_logprobs(
    hidden: Float[Tensor, "*batch L D"],
    head: nn.Module,
    targets: Int[Tensor, "*batch L"],
    mask: Bool[Tensor, "*batch L"],
    vocab_size: int,
    temperature: float = 1.0,
    chunk_elements: int = CHUNK_ELEMENTS,
    support: UInt8[Tensor, "*batch L W"] | None = None,
) -> Float[Tensor, "*batch L"]:
    """Log-probability of each target in nats (float32), 0 where the mask is False.

    Equals `log_softmax(head(hidden) / temperature).gather(targets)`, forward and gradient, but runs the head on real
    positions only and keeps at most about `chunk_elements` logits in memory. `support` restricts the softmax to its
    tokens.
    """

    if _by_head_losses(hidden, head):
        if support is not None:  # where nothing is learned, anything may be: an empty support has no softmax
            support = support.masked_fill(~mask[..., None], 255).flatten(0, -2)
        return -_at_all(hidden, head, targets, mask, chunk_elements, temperature=temperature, support=support)

    def values(h: Tensor, t: Tensor, *allowed: Tensor) -> Tensor:
        logits = head(h).float() / temperature
        for packed in allowed:
            logits = restrict(logits, packed)
        return -nn.functional.cross_entropy(logits, t, reduction="none")

    inputs = (hidden, targets) if support is None else (hidden, targets, support)
    return _over_positions(inputs, mask, values, vocab_size, chunk_elements)


def chunked_token_losses(
    hidden: Float[Tensor, "*batch L D"],
    head: nn.Module,
    targets: Int[Tensor, "*batch L"],
    mask: Bool[Tensor, "*batch L"],
    vocab_size: int,
    label_smoothing: float = 0.0,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Float[Tensor, "*batch L"]:
    """Cross-entropy of each target in nats (float32), 0 where the mask is False; otherwise like `chunked_logprobs`.

    With smoothing e the target distribution is (1 - e) on the target plus e / V on every token (Szegedy et al. 2016).
    """

    if _by_head_losses(hidden, head):
        return _at_all(hidden, head, targets, mask, chunk_elements, label_smoothing=label_smoothing)

    def values(h: Tensor, t: Tensor) -> Tensor:
        return nn.functional.cross_entropy(head(h).float(), t, reduction="none", label_smoothing=label_smoothing)

    return _over_positions((hidden, targets), mask, values, vocab_size, chunk_elements)
