"""Which captions belong to which images over all ranks, and similarities of all against all in blocks of rows.

N images, M captions; P pairs of an image with a caption of its own. In a block: n rows, compared with all C candidates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from capkit.distributed.collectives import UnevenGather
from capkit.errors import UsageError
from capkit.types import PairEmbeddings

# Stands where a candidate does not count: finite, so that a log-sum-exp over none has no NaN in its gradient.
LOWEST = -1e30

# What captions are to an image that have the same text as one of its own, but another owner: positives too, left out,
# or negatives.
DUPLICATES = ("positive", "mask", "negative")

T = TypeVar("T")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def in_blocks(function: Callable[[slice], T], num_rows: int, chunk_rows: int) -> list[T]:
    """`function` of consecutive slices of at most `chunk_rows` rows: one slice where there are no rows.

    Where there are several, each is computed once more in the backward pass, so that what is held at any time are the
    matrices of one block. Random numbers are not replayed: `function` draws none.
    """
    blocks = [slice(start, min(start + chunk_rows, num_rows)) for start in range(0, max(num_rows, 1), chunk_rows)]
    if len(blocks) == 1:
        return [function(blocks[0])]
    return [checkpoint(function, rows, use_reentrant=False, preserve_rng_state=False) for rows in blocks]


def similarities(rows: Float[Tensor, "n D"], candidates: Float[Tensor, "C D"]) -> Float[Tensor, "n C"]:
    """Dot products in float32, also under autocast."""
    with torch.autocast(rows.device.type, enabled=False):
        return rows.float() @ candidates.float().T


def largest(scores: Float[Tensor, "n C"], dim: int) -> Float[Tensor, " _"]:
    """Maximum along a dimension; LOWEST where that is empty."""
    return scores.amax(dim) if scores.shape[dim] else scores.new_full((scores.shape[1 - dim],), LOWEST)


def highest(scores: Float[Tensor, "n C"], counts: Bool[Tensor, "n C"]) -> Float[Tensor, " n"]:
    """Highest score of each row among those that count; LOWEST where none does."""
    return largest(scores.masked_fill(~counts, LOWEST), 1)


def linked(
    left: Int[Tensor, " n"], link_left: Int[Tensor, " L"], link_right: Int[Tensor, " L"], right: Int[Tensor, " C"]
) -> Bool[Tensor, "n C"]:
    """True where some link joins the two: its left end equals `left[i]` and its right end equals `right[j]`."""
    if not len(link_left):
        return torch.zeros(len(left), len(right), dtype=torch.bool, device=left.device)
    values, codes = torch.cat([link_right, right]).unique(return_inverse=True)
    ends, wanted = codes.split([len(link_right), len(right)])
    reached = torch.zeros(len(left), len(values), device=left.device)
    reached.index_add_(1, ends, (left[:, None] == link_left[None]).float())
    return reached[:, wanted] > 0


@dataclass(frozen=True)
class Captions:
    """The captions of all ranks in rank order. Gradients of `texts` return to the rank that embedded them."""

    texts: Float[Tensor, "M D"]
    owners: Int[Tensor, " M"]
    text_ids: Int[Tensor, " M"]
    rows: UnevenGather
    repeated_owners: Int[Tensor, " L"]  # of captions whose text occurs more than once:
    repeated_text_ids: Int[Tensor, " L"]  # only through these can images share a text

    @classmethod
    def gather(cls, pairs: PairEmbeddings) -> "Captions":
        rows = UnevenGather(len(pairs.texts))
        owners, text_ids = rows.gather(torch.stack([pairs.owners, pairs.text_ids], 1)).unbind(1)
        _, codes, counts = text_ids.unique(return_inverse=True, return_counts=True)
        often = counts[codes] > 1
        # Gathered in float32, so that the gradients of all ranks are summed in float32.
        return cls(rows.gather_with_grad(pairs.texts.float()), owners, text_ids, rows, owners[often], text_ids[often])

    def own(self, image_ids: Int[Tensor, " n"]) -> Bool[Tensor, "n M"]:
        """True where the caption's owner is the image."""
        return image_ids[:, None] == self.owners[None]

    def equal(self, image_ids: Int[Tensor, " n"]) -> Bool[Tensor, "n M"]:
        """True where the caption's text occurs more than once, and once at least as a caption of the image."""
        return linked(image_ids, self.repeated_owners, self.repeated_text_ids, self.text_ids)

    def positives(
        self, image_ids: Int[Tensor, " n"], duplicates: str
    ) -> tuple[Bool[Tensor, "n M"], Bool[Tensor, "n M"]]:
        """Which captions are positives of each image, and which are candidates at all: see DUPLICATES."""
        own = self.own(image_ids)
        if duplicates == "negative":
            return own, torch.ones_like(own)
        equal = self.equal(image_ids)
        return (own | equal, torch.ones_like(own)) if duplicates == "positive" else (own, own | ~equal)
