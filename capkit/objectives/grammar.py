"""Cross-entropy of a grammar head on captions and their edited versions (Cho et al. 2022, arXiv 2205.13115).

M captions, E edited captions of this rank.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from capkit.distributed.collectives import all_reduce_sum
from capkit.errors import UsageError
from capkit.types import PairEmbeddings, PairLoss

LOGITS, NEGATIVE_LOGITS = "grammar_logits", "grammar_negative_logits"


class GrammarCrossEntropy:
    """Cross-entropy of captions (class 1) against edited captions (class 0), in nats.

    The mean runs over the rows of all ranks; each row has the same weight, also if E < M. The logits are read from the
    pairs' extras: `grammar_logits` (M 2) need a dual encoder with `grammar_head`, `grammar_negative_logits` (E 2) a
    batch with negatives. Logs the head's accuracy on captions and on edits over all ranks.
    """

    def __call__(self, pairs: PairEmbeddings, step: int) -> PairLoss:
        logits, edited = (_rows(pairs, name) for name in (LOGITS, NEGATIVE_LOGITS))
        targets = torch.cat([_targets(logits, 1), _targets(edited, 0)])
        loss_sum = nn.functional.cross_entropy(torch.cat([logits, edited]).float(), targets, reduction="sum")
        right = [(part.argmax(-1) == target).sum() for part, target in ((logits, 1), (edited, 0))]
        counts = torch.stack([*right, right[0].new_tensor(len(logits)), right[0].new_tensor(len(edited))])
        right_true, right_edited, num_true, num_edited = all_reduce_sum(counts)
        return PairLoss(
            loss_sum / (num_true + num_edited).clamp(min=1),
            {
                "accuracy_captions": right_true / num_true,
                "accuracy_edits": right_edited / num_edited,
            },
        )


def _rows(pairs: PairEmbeddings, name: str) -> Float[Tensor, "_ 2"]:
    if name not in pairs.extras:
        raise UsageError(
            f"objective=grammar expected {name} from the dual encoder, got {sorted(pairs.extras) or 'no extras'}; set "
            "model.grammar_head=true and data.negatives._target_=capkit.data.negatives.EditedCaptions"
        )
    return pairs.extras[name]


def _targets(logits: Float[Tensor, "E 2"], target: int) -> Int[Tensor, " E"]:
    return torch.full((len(logits),), target, device=logits.device)
