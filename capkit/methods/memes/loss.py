"""CAMU's loss: is the meme hateful, does the chosen caption's score say so, and do caption and picture match?

B memes of this rank, M of them with a caption.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from capkit.distributed.collectives import all_reduce_sum
from capkit.errors import UsageError
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.types import PairEmbeddings, PairLoss
from capkit.utils.ranges import NonNegativeFloat, check_ranges


@check_ranges
class CamuLoss:
    """L = BCE(logit, y) + relevance * BCE(chosen caption's score, y) + contrastive * InfoNCE(pictures, chosen ones).

    Each term is a mean over the memes of all ranks; the last two over those with a caption. Logs, equal on all ranks:
    the three terms unweighted (`classification`, `relevance`, `contrastive` where it has a weight).

    The relevance term gives the scorer a gradient before fusion has learned anything, but it also pulls the chosen
    caption's score down on memes that are not hateful: a caption that tells less may then be chosen there
    (docs/camu.md has numbers). The best published setting has contrastive = 0. relevance = 1 is a choice made here.
    """

    def __init__(self, relevance: NonNegativeFloat = 1.0, contrastive: NonNegativeFloat = 0.0) -> None:
        self.relevance, self.contrastive = relevance, contrastive
        self._info_nce = InfoNCE()

    def __call__(
        self,
        logits: Float[Tensor, " B"],
        selected_scores: Float[Tensor, " B"],
        has_caption: Bool[Tensor, " B"],
        labels: Float[Tensor, " B"],
        pairs: PairEmbeddings | None,
        step: int,
    ) -> PairLoss:
        """`pairs` are the pictures with their chosen captions; not read where contrastive is 0."""
        counts = all_reduce_sum(torch.stack([torch.ones_like(has_caption), has_caption], 1).sum(0).float()).clamp(min=1)
        classification = binary_cross_entropy_with_logits(logits, labels, reduction="sum") / counts[0]
        score_losses = binary_cross_entropy_with_logits(selected_scores, labels, reduction="none")
        relevance = (score_losses * has_caption).sum() / counts[1]
        loss = classification + self.relevance * relevance
        logs = {"classification": classification.detach(), "relevance": relevance.detach()}
        if self.contrastive:
            if pairs is None:
                raise UsageError("the contrastive term compares pictures with captions; got no pairs")
            matched = self._info_nce(pairs, step)
            loss = loss + self.contrastive * matched.loss
            logs["contrastive"] = matched.loss.detach()
        shares = all_reduce_sum(torch.stack(list(logs.values())))
        return PairLoss(loss, dict(zip(logs, shares, strict=True)))
