"""Penalties on similar attention heads (Merkx & Frank 2019), averaged over the captions of all ranks.

M captions, P pairs of heads.
"""

import torch

from capkit.distributed.collectives import all_reduce_sum
from capkit.errors import UsageError
from capkit.types import PairEmbeddings, PairLoss
from capkit.utils.ranges import NonNegativeFloat, PositiveFloat, check_ranges


@check_ranges
class DiverseHeads:
    """Weighted sum of three penalties, each the sum over pairs of heads of max(0, margin - distance).

    Distances come from the pairs' extras `head_distance_weights`, `head_distance_attention` and
    `head_distance_embeddings` (M P), see `CharGRU.with_head_distances`. Logs each penalty, unweighted, by its name.

    Source: `attention_loss` of the released code, where margin and weights are 1. Deliberate difference: (1) a penalty
    is the mean over captions. The released code compares the attention of a batch's first caption only, and the
    embeddings of the whole batch by one norm, which exceeds the margin unless the batch is small.

    Raises UsageError if all weights are 0, or if the dual encoder's text tower has no heads to compare.
    """

    def __init__(
        self,
        weights: NonNegativeFloat = 1.0,
        attention: NonNegativeFloat = 1.0,
        embeddings: NonNegativeFloat = 1.0,
        margin: PositiveFloat = 1.0,
    ) -> None:
        self.factors = {"weights": weights, "attention": attention, "embeddings": embeddings}
        if not any(self.factors.values()):
            raise UsageError(
                "DiverseHeads expected a weight above 0 for weights, attention or embeddings, got 0 for each; "
                "set one, or choose objective=ranking_hinge"
            )
        self.margin = margin

    def __call__(self, pairs: PairEmbeddings, step: int) -> PairLoss:
        penalties = {kind: self._mean(pairs, f"head_distance_{kind}") for kind in self.factors}
        loss = torch.stack([self.factors[kind] * penalty for kind, penalty in penalties.items()]).sum()
        return PairLoss(loss, {kind: all_reduce_sum(penalty.detach()) for kind, penalty in penalties.items()})

    def _mean(self, pairs: PairEmbeddings, name: str) -> torch.Tensor:
        """This rank's share of the mean over the captions of all ranks."""
        if name not in pairs.extras:
            raise UsageError(
                f"DiverseHeads expected {name} from the dual encoder, got {sorted(pairs.extras) or 'no extras'}; "
                "use a CharGRU with two heads or more"
            )
        penalties = (self.margin - pairs.extras[name].float()).clamp(min=0).sum(1)
        count = all_reduce_sum(penalties.new_tensor(float(len(penalties))))
        return penalties.sum() / count.clamp(min=1)
