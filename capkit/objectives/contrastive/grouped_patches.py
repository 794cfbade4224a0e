"""Contrastive loss of each text and of the patches that it speaks of (DreamLIP).

Zheng et al. 2024 (arXiv 2403.17007), section 3.3. N images, M texts of this rank, K slots.
"""

import warnings
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from capkit.distributed.collectives import all_reduce_sum
from capkit.errors import UsageError, check_choice
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.objectives.contrastive.pairs import LOWEST
from capkit.objectives.contrastive.slots import by_image, slots_of
from capkit.types import PairEmbeddings, PairLoss
from capkit.utils.ranges import Probability, check_ranges

NEGATIVES = ("image", "batch")


@check_ranges
class GroupedPatches:
    """Symmetric cross-entropy of finding a text by its grouped patches
    (`capkit/models/dual_encoders/patch_grouping.py`), and these by the text.

    The mean over both directions and over the texts of all ranks. Equal texts of an image are each other's positives,
    with an equal share, as in `InfoNCE`. Where an image has one text, there is nothing to find among its own: its loss
    is 0, and training on such data alone warns.

    Log: `accuracy`, the share of groups, among those with a negative, that are nearer to a positive than to every
    negative.

    Deliberate differences: (1) the released program mixes up images and slots before it compares, so that of 4 images
    with 3 texts a third keep their own picture; here a text meets its own. (2) It takes negatives from the whole batch
    (`negatives=batch`), the paper from the image (`negatives=image`, the default).

    Args:
        sigma: Weights below it are 0: a number from 0 to 1, or "1/N" for one through the number of patches.
        negatives: "image": the image's other texts; "batch": all other texts of the global batch.
    """

    def __init__(self, sigma: Probability | Literal["1/N"] = 0.0, negatives: str = "image") -> None:
        check_choice("objective.negatives", negatives, NEGATIVES)
        self.sigma, self.negatives, self.info_nce = sigma, negatives, InfoNCE()
        self._has_warned = False

    def prepare(self, model: Any) -> None:
        model.tell_slots()
        model.group_patches(self.sigma)

    def __call__(self, pairs: PairEmbeddings, step: int) -> PairLoss:
        slots, number = slots_of(pairs, "GroupedPatches")
        if "grouped" not in pairs.extras:
            raise UsageError(
                f"GroupedPatches expected grouped patches from the dual encoder, got {sorted(pairs.extras)}; let the "
                "objective prepare it"
            )
        grouped = pairs.extras["grouped"]
        if self.negatives == "batch":
            ids = pairs.owners * 0x9E3779B1 + slots  # of an image's text; wraps around
            output = self.info_nce(
                PairEmbeddings(grouped, pairs.texts, pairs.logit_scale, ids, ids, pairs.text_ids), step
            )
            return PairLoss(output.loss, {"accuracy": output.logs["accuracy_i2t"]})
        if number <= 1 and torch.is_grad_enabled() and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                "every image has one text, with which objective.negatives=image has nothing to compare: its loss is 0; "
                "give data.sub_captions, or negatives=batch",
                stacklevel=2,
            )
        with torch.autocast(grouped.device.type, enabled=False):
            return self._within_images(pairs, grouped.float(), slots, max(number, 1))

    def _within_images(self, pairs: PairEmbeddings, grouped: Tensor, slots: Tensor, number: int) -> PairLoss:
        places = slots, pairs.owners, len(pairs.images), number
        texts, real = by_image(pairs.texts.float(), *places)
        groups, _ = by_image(grouped, *places)
        ids, _ = by_image(pairs.text_ids[:, None], *places)
        both = real[:, :, None] & real[:, None]
        positive = both & (ids == ids.mT)
        logits = pairs.logit_scale.float() * groups @ texts.mT
        losses = [_cross_entropy(way, positive, both)[real] for way in (logits, logits.mT)]
        best = logits.detach()
        highest_negative = best.masked_fill(~both | positive, LOWEST).amax(-1)
        found = best.masked_fill(~positive, LOWEST).amax(-1) > highest_negative
        counted = real & (both & ~positive).any(-1)
        totals = torch.stack([real.sum(), counted.sum(), (found & counted).sum()]).float()
        num_texts, num_counted, num_found = all_reduce_sum(totals)
        loss = torch.stack([way.sum() for way in losses]).sum() / 2 / num_texts.clamp(min=1)
        return PairLoss(loss, {"accuracy": num_found / num_counted.clamp(min=1)})


def _cross_entropy(
    logits: Float[Tensor, "N K K"], positive: Bool[Tensor, "N K K"], candidate: Bool[Tensor, "N K K"]
) -> Float[Tensor, "N K"]:
    """Of each row of logits, with the positives' equal shares as targets; 0 for a row without any."""
    logprobs = logits.masked_fill(~candidate, LOWEST).log_softmax(-1)
    shares = positive / positive.sum(-1, keepdim=True).clamp(min=1)
    return -torch.where(positive, shares * logprobs, 0.0).sum(-1)
