"""Symmetric contrastive loss (InfoNCE) of images and captions over the global batch, as CLIP and ALIGN train with.

N images, M captions of all ranks; n images of a block. A query is an image that is compared with all captions, or a
caption that is compared with all images; what it is compared with are its candidates.
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
from capkit.objectives.contrastive.pairs import (
    DUPLICATES,
    LOWEST,
    Captions,
    check_choice,
    in_blocks,
    largest,
    similarities,
)
from capkit.types import PairEmbeddings, PairLoss
from capkit.utils.ranges import PositiveInt, Range, check_ranges

# Of a block of logits (images, captions): the dimension over which a query's candidates lie.
CANDIDATES = {"image_to_text": 1, "text_to_image": 0}


class Queries(NamedTuple):
    """What the loss needs to know of each query's logits, instead of the logits; one entry per query."""

    logsumexp: Float[Tensor, " Q"]  # over the candidates
    positive_sum: Float[Tensor, " Q"]  # of the positives' logits
    candidate_sum: Float[Tensor, " Q"]  # of all candidates' logits
    num_positives: Float[Tensor, " Q"]
    num_candidates: Float[Tensor, " Q"]
    best_positive: Float[Tensor, " Q"]
    best_negative: Float[Tensor, " Q"]

    @classmethod
    def concatenate(cls, parts: "list[Queries]") -> "Queries":
        """Of queries that follow one another: complete rows."""
        return cls(*(torch.cat(field) for field in zip(*parts, strict=True)))

    @classmethod
    def merge(cls, parts: "list[Queries]") -> "Queries":
        """Of the same queries with other candidates in each part, and on each rank: columns cut into blocks of rows."""
        stacked = cls(*(torch.stack(field) for field in zip(*parts, strict=True)))
        sums = all_reduce_sum_with_grad(torch.stack([stacked.positive_sum.sum(0), stacked.candidate_sum.sum(0)]))
        counts = all_reduce_sum(torch.stack([stacked.num_positives.sum(0), stacked.num_candidates.sum(0)]))
        bests = all_reduce_max(torch.stack([stacked.best_positive.amax(0), stacked.best_negative.amax(0)]))
        return cls(all_reduce_logsumexp(stacked.logsumexp.logsumexp(0)), *sums, *counts, *bests)

    def select(self, rows: slice) -> "Queries":
        return Queries(*(field[rows] for field in self))

    def cross_entropy(self, label_smoothing: float) -> Float[Tensor, " Q"]:
        """-sum_j q_j log p_j of each query in nats; its q is described at `InfoNCE`. 0 where there is no positive."""
        on_positives = self.positive_sum / self.num_positives.clamp(min=1)
        on_candidates = self.candidate_sum / self.num_candidates.clamp(min=1)
        expected = (1 - label_smoothing) * on_positives + label_smoothing * on_candidates
        return torch.where(self.num_positives > 0, self.logsumexp - expected, 0.0)

    def tally(self) -> Float[Tensor, " 2"]:
        """How many queries have a positive, and for how many of these the most similar candidate is one."""
        counted = self.num_positives > 0
        return torch.stack([counted.sum(), (counted & (self.best_positive > self.best_negative)).sum()]).float()


def queries_of(
    logits: Float[Tensor, "n M"], positive: Bool[Tensor, "n M"], candidate: Bool[Tensor, "n M"], directions: list[str]
) -> dict[str, Queries]:
    """The rows, the columns or both of a block as queries: matrices that both need are made once."""
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
    """Cross-entropy of finding an image's captions among all captions, and a caption's image among all images.

    With s_ij = logit_scale * cosine(image i, caption j), p_ij = exp(s_ij) / sum_k exp(s_ik), positives P_i and
    candidates C_i of image i, label smoothing e:

        l_i = - sum_j q_ij log p_ij      q_ij = (1 - e) [j in P_i] / |P_i| + e [j in C_i] / |C_i|
        loss = (mean_i l_i + mean_j l'_j) / 2       l'_j: the same with images and captions exchanged

    P_i are all captions whose owner is image i, so that several captions of an image share the mass evenly; C_i are all
    captions of the global batch. `direction` keeps one of the two means, whole. With one caption an image and e = 0
    this is CLIP's loss (Radford et al. 2021, figure 3). Images without a caption and captions without an image
    are candidates, and no queries.

    `duplicates` says what captions are to image i that have the same text as one of its own, but another owner (in both
    directions alike): "positive": positives, with an equal share of the mass (soft targets); "mask": no candidates;
    "negative": negatives, as in CLIP.

    The softmax is over the images and captions of all ranks, in float32. Logits are computed in blocks of `chunk_rows`
    of this rank's images with all captions, and again in the backward pass: the N x M logits are never held whole where
    a rank has more images than that. The captions' log-sum-exp is combined over blocks and ranks.

    Logs, equal on all ranks: `accuracy_i2t` and `accuracy_t2i` (share of queries whose most similar candidate is a
    positive, a tie with a negative being a miss), `logit_scale`.

    Deliberate differences: (1) ALIGN (Jia et al. 2021, equations 1 and 2; e = 0.1) adds the two directions; that is
    twice this loss. (2) e is spread over all candidates, positives included, as torch's cross-entropy does.
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
        for name in self.directions:
            parts = [part[name] for part in blocks]
            whole = Queries.concatenate(parts) if name == "image_to_text" else Queries.merge(parts)
            queries[name] = whole if name == "image_to_text" else whole.select(captions.rows.own)
        return self._mean(queries, pairs)

    def _mean(self, queries: dict[str, Queries], pairs: PairEmbeddings) -> PairLoss:
        """This rank's share: its own queries, divided by those of all ranks."""
        tallies = all_reduce_sum(torch.stack([side.tally() for side in queries.values()]))
        loss = torch.zeros((), device=pairs.images.device)
        logs = {"logit_scale": pairs.logit_scale.detach().float()}
        for (name, side), (num_queries, num_hits) in zip(queries.items(), tallies, strict=True):
            mean = side.cross_entropy(self.label_smoothing).sum() / num_queries.clamp(min=1)
            loss = loss + mean / len(queries)
            logs["accuracy_i2t" if name == "image_to_text" else "accuracy_t2i"] = num_hits / num_queries.clamp(min=1)
        return PairLoss(loss, logs)
