"""Cosine, CLIPScore, RefCLIPScore and PAC-S of each caption: the metrics' own functions, caption by caption.

B images, K samples per image, M = B K captions, D width.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.metrics.clip_score import best_reference_cosine, clip_score, ref_clip_score
from capkit.models.dual_encoders.base import CacheableEncoder
from capkit.scorers.flatten import references_of, unflatten_scores
from capkit.scorers.image_text import PictureScorer
from capkit.types import CaptionBatch, Samples
from capkit.utils.ranges import PositiveFloat, check_ranges
from capkit.utils.renamed import takes_old_arguments


class Cosine(PictureScorer):
    """cos(picture, caption), in -1 .. 1: what CLIPScore is made of, and alignment levels are made of."""

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        pictures, owners, texts = self.embed(batch, samples)
        return unflatten_scores((pictures[owners] * texts).sum(-1), samples)


@takes_old_arguments
@check_ranges
class ClipScore(PictureScorer):
    """w max(cos(picture, caption), 0): equation 1 of Hessel et al. (2021, arXiv 2104.08718), in 0 .. w.

    w = 2.5 there. PAC-S (Sarto et al. 2023, arXiv 2303.12112) is this with w = 2 and a judge with PAC's weights.
    """

    def __init__(self, encoder: CacheableEncoder, weight: PositiveFloat = 2.5, folder: str | None = None) -> None:
        super().__init__(encoder, folder)
        self.weight = float(weight)

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        pictures, owners, texts = self.embed(batch, samples)
        return unflatten_scores(clip_score((pictures[owners] * texts).sum(-1), self.weight), samples)

    def provenance(self) -> dict[str, Any]:
        return {**super().provenance(), "weight": self.weight}


class RefClipScore(ClipScore):
    """Harmonic mean of CLIPScore and the best cosine of caption and reference, at least 0 (Hessel et al., section 3).

    In 0 .. 2 w / (w + 1), which is 1.43 for w = 2.5. The weight stands on the picture's side only, as in the authors'
    code. 0 where either side is 0, so flat for captions that are far from all references.
    """

    needs_references = True

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        """Raises UsageError where an image has no reference."""
        references = references_of(batch, "RefClipScore")
        pictures, owners, texts = self.embed(batch, samples)
        cosines = (pictures[owners] * texts).sum(-1)
        own = texts.split([len(image) for image in samples.texts])
        best = best_reference_cosine(own, references, self.encoder)
        scores = ref_clip_score(cosines, best, self.weight)
        return unflatten_scores(scores.masked_fill(cosines.isnan(), torch.nan), samples)
