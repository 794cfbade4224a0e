"""CLIPScore and RefCLIPScore (Hessel et al. 2021), and PAC-S (Sarto et al. 2023), which is the same with w = 2.

B captions, D width.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.metrics.embedding_metric import EmbeddingMetric, Pairs
from capkit.models.dual_encoders.base import DualEncoder
from capkit.utils.ranges import PositiveFloat, check_ranges


def clip_score(cosine: Float[Tensor, " B"], weight: float = 2.5) -> Float[Tensor, " B"]:
    """w max(cos(image, caption), 0): equation 1 of Hessel et al., w = 2.5 there and 2 in PAC-S."""
    return weight * cosine.clamp(min=0)


def ref_clip_score(
    cosine: Float[Tensor, " B"], reference_cosine: Float[Tensor, " B"], weight: float = 2.5
) -> Float[Tensor, " B"]:
    """Harmonic mean of the CLIPScore and max(0, best cosine of caption and reference); 0 where either is 0.

    The weight stands on the image side only, as in the authors' code: with it on both sides a caption at .31 from the
    image and .72 from its best reference gets 1.083495 instead of .746488, and some published repositories do so.
    """
    image_side, text_side = clip_score(cosine, weight), reference_cosine.clamp(min=0)
    total = image_side + text_side
    return torch.where(total > 0, 2 * image_side * text_side / total.clamp(min=1e-12), torch.zeros_like(total))


@check_ranges
class ClipScore(EmbeddingMetric):
    """Mean CLIPScore, and mean RefCLIPScore where every prediction has references.

    The papers prompt with "A photo depicts" on captions and references alike: set it on the judge. PAC-S is this with
    weight=2 and a judge with PAC's weights.
    """

    def __init__(self, encoder: DualEncoder, weight: PositiveFloat = 2.5, name: str = "clip_score") -> None:
        super().__init__(encoder, name)
        self.weight = weight

    def _reference_similarity(self, texts: Tensor, references: list[list[str]]) -> Tensor:
        """Best cosine of each caption with its references; NaN where it has none."""
        owner = [i for i, group in enumerate(references) for _ in group]
        best = torch.full((len(references),), -torch.inf, device=texts.device)
        if owner:
            rows = torch.tensor(owner, device=texts.device)
            encoded = self.encoder.encode_text([text for group in references for text in group])
            best = best.scatter_reduce(0, rows, (texts[rows].float() * encoded.float()).sum(-1), reduce="amax")
        return best.masked_fill(best.isinf(), torch.nan)

    def score_pairs(self, pairs: Pairs) -> dict[str, float]:
        cosine = (pairs.texts * pairs.images[pairs.owner]).sum(-1)
        numbers = {"mean": float(clip_score(cosine, self.weight).mean())}
        if not bool(pairs.reference.isnan().any()):
            numbers["ref"] = float(ref_clip_score(cosine, pairs.reference, self.weight).mean())
        return numbers
