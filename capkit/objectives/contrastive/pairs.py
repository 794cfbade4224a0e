"""Which captions belong to which images across ranks, and blockwise similarities of all against all.

N images, M captions, P pairs of an image and one of its captions; L links. In a block: n rows against all C candidates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from capkit.distributed.collectives import UnevenGather
from capkit.types import PairEmbeddings

# Score of a masked candidate. Finite: with -inf, a log-sum-exp over no candidate would have NaN in its gradient.
LOWEST = -1e30

# How to treat captions whose text equals one of the image's captions but whose owner is another image: as positives,
# masked out, or as negatives.
DUPLICATES = ("positive", "mask", "negative")

T = TypeVar("T")


def in_blocks(function: Callable[[slice], T], num_rows: int, chunk_rows: int) -> list[T]:
    """Apply `function` to consecutive slices of at most `chunk_rows` rows; without rows, to one empty slice.

    Several slices are recomputed in the backward pass (activation checkpointing), so that only one block's matrices are
    in memory at a time. The RNG state is not replayed: `function` must not draw random numbers.
    """
    blocks = [slice(start, min(start + chunk_rows, num_rows)) for start in range(0, max(num_rows, 1), chunk_rows)]
    if len(blocks) == 1:
        return [function(blocks[0])]
    return [checkpoint(function, rows, use_reentrant=False, preserve_rng_state=False) for rows in blocks]


def similarities(rows: Float[Tensor, "n D"], candidates: Float[Tensor, "C D"]) -> Float[Tensor, "n C"]:
    """Dot products in float32, even under autocast."""
    with torch.autocast(rows.device.type, enabled=False):
        return rows.float() @ candidates.float().T


def largest(scores: Float[Tensor, "n C"], dim: int) -> Float[Tensor, " _"]:
    """Maximum along a dimension; LOWEST if the dimension is empty."""
    return scores.amax(dim) if scores.shape[dim] else scores.new_full((scores.shape[1 - dim],), LOWEST)


def highest(scores: Float[Tensor, "n C"], counts: Bool[Tensor, "n C"]) -> Float[Tensor, " n"]:
    """Maximum of each row over the candidates that count; LOWEST if none does."""
    return largest(scores.masked_fill(~counts, LOWEST), 1)


def linked(
    left: Int[Tensor, " n"], link_left: Int[Tensor, " L"], link_right: Int[Tensor, " L"], right: Int[Tensor, " C"]
) -> Bool[Tensor, "n C"]:
    """True at (i, j) if some link joins the two: its left end equals `left[i]`, its right end `right[j]`.

    Goes through the distinct right ends: (n L) and (n values) matrices instead of the (n L C) comparison.
    """
    if not len(link_left):
        return torch.zeros(len(left), len(right), dtype=torch.bool, device=left.device)
    # Number the distinct right ends, mark which of them each `left[i]` reaches, and look up those of `right`.
    values, codes = torch.cat([link_right, right]).unique(return_inverse=True)
    ends, wanted = codes.split([len(link_right), len(right)])
    reached = torch.zeros(len(left), len(values), device=left.device)
    reached.index_add_(1, ends, (left[:, None] == link_left[None]).float())
    return reached[:, wanted] > 0


@dataclass(frozen=True)
class Captions:
    """The captions of all ranks in rank order. Gradients of `texts` flow back to the rank that embedded them."""

    texts: Float[Tensor, "M D"]
    owners: Int[Tensor, " M"]
    text_ids: Int[Tensor, " M"]
    rows: UnevenGather
    repeated_owners: Int[Tensor, " L"]  # owners and texts of captions whose text occurs more than once:
    repeated_text_ids: Int[Tensor, " L"]  # images share a text only through these

    @classmethod
    def gather(cls, pairs: PairEmbeddings) -> "Captions":
        rows = UnevenGather(len(pairs.texts))
        owners, text_ids = rows.gather(torch.stack([pairs.owners, pairs.text_ids], 1)).unbind(1)
        _, codes, counts = text_ids.unique(return_inverse=True, return_counts=True)
        often = counts[codes] > 1
        # Gathered in float32, so that the gradients of all ranks are summed in float32.
        return cls(rows.gather_with_grad(pairs.texts.float()), owners, text_ids, rows, owners[often], text_ids[often])

    def own(self, image_ids: Int[Tensor, " n"]) -> Bool[Tensor, "n M"]:
        """True if the image owns the caption."""
        return image_ids[:, None] == self.owners[None]

    def equal(self, image_ids: Int[Tensor, " n"]) -> Bool[Tensor, "n M"]:
        """True if the caption's text occurs more than once, at least once among the image's own captions."""
        return linked(image_ids, self.repeated_owners, self.repeated_text_ids, self.text_ids)

    def positives(
        self, image_ids: Int[Tensor, " n"], duplicates: str
    ) -> tuple[Bool[Tensor, "n M"], Bool[Tensor, "n M"]]:
        """Masks of each image's positives and of its candidates, as `duplicates` says (see DUPLICATES)."""
        own = self.own(image_ids)
        if duplicates == "negative":
            return own, torch.ones_like(own)
        equal = self.equal(image_ids)
        return (own | equal, torch.ones_like(own)) if duplicates == "positive" else (own, own | ~equal)
