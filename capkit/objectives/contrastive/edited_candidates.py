"""Edited captions as hard negatives of a contrastive loss (Cho et al. 2022, arXiv 2205.13115, released as joint_out).

M captions, E edited captions of this rank, D of the joint space.
"""

from dataclasses import replace

import torch

from capkit.errors import UsageError
from capkit.objectives.base import PairObjective
from capkit.types import PairEmbeddings, PairLoss

TEXTS, TEXT_IDS = "negative_texts", "negative_text_ids"
NOBODY = -1  # owner of a caption that belongs to no image; ids of images are not negative


class EditedCandidates:
    """An objective in which each image is also compared with the edited captions of all ranks.

    They are further captions without an image: with `InfoNCE` they stand in the softmax over captions, and are no
    queries. An edit that happens to equal a caption is treated as that caption (`duplicates` of InfoNCE).

    Reads the pairs' extras `negative_texts` (E D) and `negative_text_ids` (E), of a batch with negatives.
    """

    def __init__(self, objective: PairObjective) -> None:
        self.objective = objective

    def __call__(self, pairs: PairEmbeddings, step: int) -> PairLoss:
        if TEXTS not in pairs.extras:
            raise UsageError(
                f"EditedCandidates expected {TEXTS} from the dual encoder, got {sorted(pairs.extras) or 'no extras'}; "
                "set data.negatives._target_=capkit.data.negatives.EditedCaptions"
            )
        edits, ids = pairs.extras[TEXTS], pairs.extras[TEXT_IDS]
        with_edits = replace(
            pairs,
            texts=torch.cat([pairs.texts, edits]),
            owners=torch.cat([pairs.owners, ids.new_full(ids.shape, NOBODY)]),
            text_ids=torch.cat([pairs.text_ids, ids]),
            extras={},
        )
        return self.objective(with_edits, step)
