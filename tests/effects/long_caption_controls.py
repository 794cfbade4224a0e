"""DreamLIP with one thing taken away, for its effect test: as `data.train._target_` and as a term of the objective."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from capkit.data.records import Record
from capkit.models.dual_encoders.patch_grouping import PatchGrouping
from capkit.objectives.contrastive.grouped_patches import GroupedPatches
from capkit.sceneworld.sources.long_captions import LongCaptions
from capkit.types import PairEmbeddings, PairLoss
from capkit.utils.tensors import unit


class SentencesOfOthers(LongCaptions):
    """Each picture has its own alt text and the long captions of another one."""

    def record(self, index: int) -> Record:
        record, other = super().record(index), super().record((index + len(self) // 2) % len(self))
        own, others = ([c for c in r.captions if c.source == name] for r, name in ((record, "raw"), (other, "long")))
        return replace(record, captions=[*own, *others])


class WholeCaptions(LongCaptions):
    """Long captions that the splitter takes for one sentence, so that a text is a whole one, cut where tokens end."""

    def record(self, index: int) -> Record:
        record = super().record(index)
        whole = [replace(caption, text=caption.text.rstrip(".").replace(". ", ", ")) for caption in record.captions]
        return replace(record, captions=whole)


class _ShuffledGrouping(PatchGrouping):
    def weights(self, cosines: Float[Tensor, "*texts P"]) -> Float[Tensor, "*texts P"]:
        found = super().weights(cosines)
        return found[..., torch.randperm(found.shape[-1])]


class ShuffledPatches(GroupedPatches):
    """Weights are given to other patches of the picture than those that they were computed of."""

    def prepare(self, model: Any) -> None:
        super().prepare(model)
        model.grouping = _ShuffledGrouping(self.sigma)


class PicturesTell(GroupedPatches):
    """A text's group of its own picture against those of the other pictures: nothing is told without the picture.

    Not DreamLIP's: each text groups the patches of every picture of a step, which micro-batches and ranks cannot share.
    Validation leaves the term out.
    """

    weighting: type[PatchGrouping] = PatchGrouping

    def prepare(self, model: Any) -> None:
        super().prepare(model)
        model.grouping = self._likeness

    def _likeness(
        self, texts: Tensor, patches: Tensor, image_of: Tensor, slots: Tensor, num_slots: int
    ) -> Float[Tensor, "M B"]:
        weights = self.weighting(self.sigma).weights(torch.einsum("md,bpd->mbp", texts, patches))
        groups = unit(torch.einsum("mbp,bpd->mbd", weights, patches))
        self._own = image_of
        found = torch.einsum("mbd,md->mb", groups, texts)
        return found if torch.is_grad_enabled() else found[:, :1]

    def __call__(self, pairs: PairEmbeddings, step: int) -> PairLoss:
        logits = pairs.logit_scale * pairs.extras["grouped"]
        if not torch.is_grad_enabled():
            return PairLoss(logits.new_zeros(()), {})
        accuracy = (logits.argmax(1) == self._own).float().mean()
        return PairLoss(cross_entropy(logits, self._own), {"accuracy": accuracy})


class ShuffledPicturesTell(PicturesTell):
    """The same with shuffled weights."""

    weighting = _ShuffledGrouping
