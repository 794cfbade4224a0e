"""Contrastive loss of images with several texts each (DreamLIP): each text by itself against the other images' texts.

Zheng et al. 2024 (arXiv 2403.17007), section 3.2.
"""

from dataclasses import replace
from typing import Annotated, Any

import torch

from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.objectives.contrastive.slots import slots_of
from capkit.types import PairEmbeddings, PairLoss
from capkit.utils.ranges import PositiveInt, Range, check_ranges


@check_ranges
class MultiPositive:
    """Mean over the K slots of `InfoNCE` of the images and their texts in that slot.

    An image's other texts are neither its positives nor its negatives there. The arguments are `InfoNCE`'s; so are the
    logs, as means over the slots.
    """

    def __init__(
        self,
        label_smoothing: Annotated[float | int, Range(0, below=1)] = 0.0,
        duplicates: str = "positive",
        chunk_rows: PositiveInt = 1024,
    ) -> None:
        self.info_nce = InfoNCE(label_smoothing, duplicates, chunk_rows=chunk_rows)

    def prepare(self, model: Any) -> None:
        model.tell_slots()

    def __call__(self, pairs: PairEmbeddings, step: int) -> PairLoss:
        slots, number = slots_of(pairs, "MultiPositive")
        outputs = [self.info_nce(self._in_slot(pairs, slots == slot), step) for slot in range(max(number, 1))]
        loss = torch.stack([output.loss for output in outputs]).mean()
        return PairLoss(loss, {k: torch.stack([out.logs[k] for out in outputs]).mean() for k in outputs[0].logs})

    def _in_slot(self, pairs: PairEmbeddings, chosen: torch.Tensor) -> PairEmbeddings:
        texts, owners, text_ids = (rows[chosen] for rows in (pairs.texts, pairs.owners, pairs.text_ids))
        return replace(pairs, texts=texts, owners=owners, text_ids=text_ids, extras={})
