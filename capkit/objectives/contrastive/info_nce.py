"""Symmetric contrastive loss (InfoNCE) of images and captions over the global batch, as in CLIP and ALIGN.

N images, M captions of all ranks; n images of a block; Q queries. A query is an image compared with all captions, or a
caption compared with all images; the items that it is compared with are its candidates.
"""

from typing import Annotated, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from capkit.distributed.collectives import (
    all_reduce_logsumexp,
    all_reduce_max,
    all_reduce_sum,
    all_reduce_sum_with_grad,
)
from capkit.errors import check_choice
from capkit.objectives.contrastive.pairs import (
    DUPLICATES,
    LOWEST,
    Captions,
    in_blocks,
    largest,
    similarities,
)
from capkit.types import PairEmbeddings, PairLoss
from capkit.utils.ranges import PositiveInt, Range, check_ranges

# The dimension of the logits (images, captions) along which a query's candidates lie.
CANDIDATES = {"image_to_text": 1, "text_to_image": 0}


class Queries(NamedTuple):
    """Sufficient statistics of each query's logits, one entry per query: the loss needs these and not the logits."""

    logsumexp: Float[Tensor, " Q"]  # over the candidates
    positive_sum: Float[Tensor, " Q"]  # of the positives' logits
    candidate_sum: Float[Tensor, " Q"]  # of all candidates' logits
    num_positives: Float[Tensor, " Q"]
    num_candidates: Float[Tensor, " Q"]
    best_positive: Float[Tensor, " Q"]
    best_negative: Float[Tensor, " Q"]

    @classmethod
    def concatenate(cls, parts: "list[Queries]") -> "Queries":
        """Join different queries: image rows, each of which has seen all captions."""
        return cls(*(torch.cat(field) for field in zip(*parts, strict=True)))

    @classmethod
    def merge(cls, parts: "list[Queries]") -> "Queries":
        """Combine the same queries over different candidates: caption columns, split by images into blocks and ranks.

        Sums add up, maxima take the maximum, and the log-sum-exp of a union is the log-sum-exp of its parts'.
        """
        stacked = cls(*(torch.stack(field) for field in zip(*parts, strict=True)))
        sums = all_reduce_sum_with_grad(torch.stack([stacked.positive_sum.sum(0), stacked.candidate_sum.sum(0)]))
        counts = all_reduce_sum(torch.stack([stacked.num_positives.sum(0), stacked.num_candidates.sum(0)]))
        bests = all_reduce_max(torch.stack([stacked.best_positive.amax(0), stacked.best_negative.amax(0)]))
        return cls(all_reduce_logsumexp(stacked.logsumexp.logsumexp(0)), *sums, *counts, *bests)

    def select(self, rows: slice) -> "Queries":
        return Queries(*(field[rows] for field in self))

    def cross_entropy(self, label_smoothing: float) -> Float[Tensor, " Q"]:
        """-sum_j q_j log p_j of each query in nats, with q as in `InfoNCE`; 0 for a query without a positive.

        As log p_j = s_j - logsumexp(s) and sum_j q_j = 1, this is logsumexp(s) - sum_j q_j s_j.
        """
        on_positives = self.positive_sum / self.num_positives.clamp(min=1)
        on_candidates = self.candidate_sum / self.num_candidates.clamp(min=1)
        expected = (1 - label_smoothing) * on_positives + label_smoothing * on_candidates
        return torch.where(self.num_positives > 0, self.logsumexp - expected, 0.0)

    def tally(self) -> Float[Tensor, " 2"]:
        """Number of queries with a positive, and of those among them whose most similar candidate is a positive."""
        counted = self.num_positives > 0
        # Strictly greater: a tie with a negative is a miss, also if all embeddings have collapsed to one point.
        return torch.stack([counted.sum(), (counted & (self.best_positive > self.best_negative)).sum()]).float()


def queries_of(
    logits: Float[Tensor, "n M"], positive: Bool[Tensor, "n M"], candidate: Bool[Tensor, "n M"], directions: list[str]
) -> dict[str, Queries]:
    """Reduce a block of logits to queries along its rows, its columns or both; shared matrices are computed once."""
    # LOWEST leaves a masked candidate out of the log-sum-exp, where exp(LOWEST) = 0; in the sums it counts as 0.
    kept = logits.masked_fill(~candidate, LOWEST)
    on_positives, on_candidates = logits * positive, logits * candidate
    positives = logits.detach().masked_fill(~positive, LOWEST)
    negatives = kept.detach().masked_fill(positive, LOWEST)

    def along(dim: int) -> Queries:
        return Queries(
            kept.logsumexp(dim),
            on_positives.sum(dim),
            on_candidates.sum(dim),
            positive.sum(dim).float(),
            candidate.sum(dim).float(),
            largest(positives, dim),
            largest(negatives, dim),
        )

    return {name: along(CANDIDATES[name]) for name in directions}


@check_ranges
class InfoNCE:
    """Cross-entropy of retrieving an image's captions among all captions and a caption's image among all images.

    With s_ij = logit_scale * cosine(image i, caption j), p_ij = exp(s_ij) / sum_k exp(s_ik), positives P_i and
    candidates C_i of image i, label smoothing e:

        l_i = - sum_j q_ij log p_ij      q_ij = (1 - e) [j in P_i] / |P_i| + e [j in C_i] / |C_i|
        loss = (mean_i l_i + mean_j l'_j) / 2       l'_j: the same with images and captions exchanged

    P_i are all captions owned by image i, so several captions of an image share the mass evenly; C_i are all captions
    of the global batch. With one caption per image and e = 0 this is CLIP's loss (Radford et al. 2021, figure 3).
    Images without a caption and captions without an image are candidates but not queries.

    The softmax runs over the images and captions of all ranks, in float32. Logits are computed for blocks of
    `chunk_rows` images of this rank against all captions, and recomputed in the backward pass, so that the full matrix
    is never in memory if a rank has more images than that. The captions' log-sum-exp is combined over blocks and ranks.

    Logs, equal on all ranks: `accuracy_i2t` and `accuracy_t2i` (share of queries whose most similar candidate is a
    positive; a tie with a negative is a miss), `logit_scale`.

    Deliberate differences: (1) ALIGN (Jia et al. 2021, equations 1 and 2; e = 0.1) adds the two directions, which gives
    twice this loss. (2) e is spread over all candidates, positives included, as in torch's cross-entropy.

    Args:
        label_smoothing: e above, in [0, 1).
        duplicates: How to treat captions whose text equals one of image i's captions but whose owner is another image,
            in both directions. "positive": as positives, with an equal share of the mass (soft targets); "mask":
            excluded from the candidates; "negative": as negatives, as in CLIP.
        direction: "both", or "image_to_text" or "text_to_image" for one of the two means, not halved.
        chunk_rows: Images per block.
    """

    def __init__(
        self,
        label_smoothing: Annotated[float | int, Range(0, below=1)] = 0.0,
        duplicates: str = "positive",
        direction: str = "both",
        chunk_rows: PositiveInt = 1024,
    ) -> None:
        check_choice("objective.duplicates", duplicates, DUPLICATES)
        check_choice("objective.direction", direction, ("both", *CANDIDATES))
        self.label_smoothing, self.duplicates, self.chunk_rows = label_smoothing, duplicates, chunk_rows
        self.directions = [name for name in CANDIDATES if direction in ("both", name)]

    def __call__(self, pairs: PairEmbeddings, step: int) -> PairLoss:
        captions = Captions.gather(pairs)

        def block(rows: slice) -> dict[str, Queries]:
            logits = pairs.logit_scale.float() * similarities(pairs.images[rows], captions.texts)
            positive, candidate = captions.positives(pairs.image_ids[rows], self.duplicates)
            return queries_of(logits, positive, candidate, self.directions)

        blocks = in_blocks(block, len(pairs.images), self.chunk_rows)
        queries = {}
        # A block's rows are complete: an image meets all captions. Its columns are not: a caption meets the images of
        # one block of one rank, so its statistics are merged, and each rank then keeps those of its own captions.
        for name in self.directions:
            parts = [part[name] for part in blocks]
            whole = Queries.concatenate(parts) if name == "image_to_text" else Queries.merge(parts)
            queries[name] = whole if name == "image_to_text" else whole.select(captions.rows.own)
        return self._mean(queries, pairs)

    def _mean(self, queries: dict[str, Queries], pairs: PairEmbeddings) -> PairLoss:
        """This rank's share of the loss: the sum over its own queries, divided by the queries of all ranks."""
        tallies = all_reduce_sum(torch.stack([side.tally() for side in queries.values()]))
        loss = torch.zeros((), device=pairs.images.device)
        logs = {"logit_scale": pairs.logit_scale.detach().float()}
        for (name, side), (num_queries, num_hits) in zip(queries.items(), tallies, strict=True):
            mean = side.cross_entropy(self.label_smoothing).sum() / num_queries.clamp(min=1)
            loss = loss + mean / len(queries)
            logs["accuracy_i2t" if name == "image_to_text" else "accuracy_t2i"] = num_hits / num_queries.clamp(min=1)
        return PairLoss(loss, logs)
