"""Image-caption pairs compared with all wrong captions or all wrong images of the global batch.

N images, M captions of all ranks; P pairs of this rank. In a block: n pairs, each with C candidates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from capkit.distributed.collectives import UnevenGather, all_reduce_sum
from capkit.objectives.contrastive.pairs import Captions, highest, in_blocks, linked, similarities
from capkit.types import PairEmbeddings

# For each value of `negatives`, the kinds of candidates; and for each kind, the retrieval direction that it trains.
NEGATIVES = {"sentences": ("sentences",), "images": ("images",), "both": ("sentences", "images")}
SEARCH = {"sentences": "i2t", "images": "t2i"}


class Comparison(NamedTuple):
    """Cosine of each pair, and cosines of its anchor (image or caption) with every candidate for the other side."""

    pair: Float[Tensor, " n"]
    candidates: Float[Tensor, "n C"]
    negative: Bool[Tensor, "n C"]  # False at the positive and at its equivalents

    def tally(self, terms: Float[Tensor, "..."]) -> Float[Tensor, " 3"]:
        """Number of pairs, of pairs more similar than all of their negatives, and of loss terms above 0."""
        # Strictly greater: a tie with a negative is a miss.
        hits = self.pair > highest(self.candidates, self.negative)
        return torch.stack([hits.new_tensor(len(hits), dtype=torch.long), hits.sum(), (terms > 0).sum()]).float()


@dataclass(frozen=True)
class Comparisons:
    """The pairs of this rank's captions with their images, which may be on any rank.

    Captions of the pair's image, captions with the same text as one of these, and images that have a caption with the
    pair's text are not negatives. Gradients of images and captions flow back to the rank that embedded them.
    """

    captions: Captions
    images: Float[Tensor, "N D"]
    image_ids: Int[Tensor, " N"]
    caption_rows: Int[Tensor, " P"]
    image_rows: Int[Tensor, " P"]

    @classmethod
    def gather(cls, pairs: PairEmbeddings, chunk_rows: int) -> "Comparisons":
        captions, rows = Captions.gather(pairs), UnevenGather(len(pairs.images))
        image_ids = rows.gather(pairs.image_ids)
        # Chunked, so that the (captions, images) comparison stays small; an empty tensor splits into one empty chunk.
        found = [(owners[:, None] == image_ids[None]).nonzero() for owners in pairs.owners.split(chunk_rows)]
        # `nonzero` counts rows from its chunk's start; this rank's captions start at row `own.start` of the gathered.
        starts = [captions.rows.own.start + place * chunk_rows for place in range(len(found))]
        caption_rows = torch.cat([part[:, 0] + start for part, start in zip(found, starts, strict=True)])
        image_rows = torch.cat([part[:, 1] for part in found])
        return cls(captions, rows.gather_with_grad(pairs.images.float()), image_ids, caption_rows, image_rows)

    def total(
        self, negatives: str, block: Callable[[Comparison], tuple[Tensor, Tensor]], chunk_rows: int
    ) -> tuple[Float[Tensor, ""], Tensor]:
        """Sum `block`'s loss over this rank's pairs, with gradient, and its tally over the pairs of all ranks."""
        blocks = in_blocks(lambda rows: block(self.against(negatives, rows)), len(self.caption_rows), chunk_rows)
        losses, tallies = zip(*blocks, strict=True)
        return torch.stack(losses).sum(), all_reduce_sum(torch.stack(tallies).sum(0))

    def num_candidates(self, negatives: str) -> int:
        return len(self.captions.texts if negatives == "sentences" else self.images)

    def against(self, negatives: str, rows: slice) -> Comparison:
        """Compare a block of pairs with all captions ("sentences") or all images ("images")."""
        caption_rows, image_rows = self.caption_rows[rows], self.image_rows[rows]
        texts, images = self.captions.texts[caption_rows], self.images[image_rows]
        pair = (texts * images).sum(1)
        if negatives == "sentences":
            image_ids = self.image_ids[image_rows]
            related = self.captions.own(image_ids) | self.captions.equal(image_ids)
            return Comparison(pair, similarities(images, self.captions.texts), ~related)
        # Related: the caption's own image, and images that own a caption with the same text.
        text_ids, owners = self.captions.text_ids[caption_rows], self.captions.owners[caption_rows]
        repeated = self.captions.repeated_text_ids, self.captions.repeated_owners
        related = (owners[:, None] == self.image_ids[None]) | linked(text_ids, *repeated, self.image_ids)
        return Comparison(pair, similarities(texts, self.images), ~related)
