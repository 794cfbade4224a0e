"""Triplet loss: an anchor, its positive, and one negative mined from the global batch."""

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.errors import check_choice
from capkit.objectives.contrastive.comparisons import NEGATIVES, SEARCH, Comparison, Comparisons
from capkit.objectives.contrastive.pairs import highest
from capkit.types import PairEmbeddings, PairLoss
from capkit.utils.ranges import PositiveFloat, PositiveInt, check_ranges


@check_ranges
class Triplet:
    """Mean of max(0, margin + d(anchor, positive) - d(anchor, negative)), with d = 1 - cosine.

    From FaceNet (Schroff et al. 2015, sections 3.1 and 3.2), with images and captions in place of faces. Anchor and
    positive are an image and one of its captions. Captions of the same image, and captions with the same text as one of
    these, are never negatives. A pair without any negative is left out of the mean.

    Similarities are float32, computed for blocks of `chunk_rows` pairs against all candidates and recomputed in the
    backward pass. Logs, equal on all ranks: `accuracy_i2t` and `accuracy_t2i` (share of pairs closer than all of their
    negatives), `violations` (share of triplets with a loss above zero).

    Deliberate difference: (1) the published distance is squared Euclidean, which on unit vectors is twice the cosine
    distance: its margin of 0.2 is 0.1 here, and its loss is twice this one.

    Args:
        margin: How much closer the positive must be, in cosine distance.
        negatives: "sentences": the anchor is the image, the negative a wrong caption; "images": the anchor is the
            caption, the negative a wrong image; "both": the mean of the two means.
        mining: How the negative is chosen among those of all ranks. "hardest": the closest to the anchor; "semi_hard":
            the closest of those farther than the positive or, if there is none, the farthest of all.
        chunk_rows: Pairs per block.
    """

    def __init__(
        self,
        margin: PositiveFloat = 0.2,
        negatives: str = "both",
        mining: str = "semi_hard",
        chunk_rows: PositiveInt = 1024,
    ) -> None:
        check_choice("objective.negatives", negatives, tuple(NEGATIVES))
        check_choice("objective.mining", mining, ("hardest", "semi_hard"))
        self.margin, self.negatives, self.mining, self.chunk_rows = margin, NEGATIVES[negatives], mining, chunk_rows

    def __call__(self, pairs: PairEmbeddings, step: int) -> PairLoss:
        comparisons = Comparisons.gather(pairs, self.chunk_rows)
        loss = torch.zeros((), device=pairs.images.device)
        logs, num_violations, num_triplets = {}, loss, loss
        for kind in self.negatives:
            loss_sum, (num_pairs, hits, violations, mined) = comparisons.total(kind, self._triplets, self.chunk_rows)
            # The mean over pairs that have a negative, on all ranks; those without one contribute 0 to the sum.
            loss = loss + loss_sum / mined.clamp(min=1) / len(self.negatives)
            logs[f"accuracy_{SEARCH[kind]}"] = hits / num_pairs.clamp(min=1)
            num_violations, num_triplets = num_violations + violations, num_triplets + mined
        return PairLoss(loss, {**logs, "violations": num_violations / num_triplets.clamp(min=1)})

    def _triplets(self, comparison: Comparison) -> tuple[Float[Tensor, ""], Float[Tensor, " 4"]]:
        mined = comparison.negative.any(1)
        # margin + d(a, p) - d(a, n) = margin - cos(a, p) + cos(a, n), since d = 1 - cos
        terms = (self.margin - comparison.pair + self._mine(comparison)).relu() * mined
        return terms.sum(), torch.cat([comparison.tally(terms), mined.sum()[None].float()])

    def _mine(self, comparison: Comparison) -> Float[Tensor, " n"]:
        """Cosine of each anchor with its negative; negatives at equal distance share the gradient evenly (amax)."""
        pair, candidates, negative = comparison
        if self.mining == "hardest":
            return highest(candidates, negative)
        farther = negative & (candidates < pair[:, None])  # farther: a lower cosine, so the farthest is the minimum
        return torch.where(farther.any(1), highest(candidates, farther), -highest(-candidates, negative))
