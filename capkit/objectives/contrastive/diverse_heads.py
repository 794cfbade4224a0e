"""Penalty on similar attention heads (Merkx & Frank 2019), averaged over the captions of all ranks."""

from capkit.distributed.collectives import all_reduce_sum
from capkit.errors import UsageError
from capkit.types import PairEmbeddings, PairLoss

PENALTY = "head_similarity"


class DiverseHeads:
    """Mean over captions of `CharGRU.diversity_penalty`, read from the pairs' extras as `head_similarity`.

    Raises UsageError if the dual encoder's text tower has no heads to compare.
    """

    def __call__(self, pairs: PairEmbeddings, step: int) -> PairLoss:
        if PENALTY not in pairs.extras:
            raise UsageError(
                f"DiverseHeads expected {PENALTY} from the dual encoder, got {sorted(pairs.extras) or 'no extras'}; "
                "use a CharGRU with two heads or more"
            )
        penalties = pairs.extras[PENALTY].float()
        count = all_reduce_sum(penalties.new_tensor(float(len(penalties))))
        loss = penalties.sum() / count.clamp(min=1)
        return PairLoss(loss, {PENALTY: all_reduce_sum(loss.detach())})
