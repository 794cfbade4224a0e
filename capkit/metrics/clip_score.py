"""CLIPScore and RefCLIPScore (Hessel et al. 2021); PAC-S (Sarto et al. 2023) is the same with w = 2.

B captions, D width.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.metrics.embedding_metric import EmbeddingMetric, Pairs
from capkit.models.dual_encoders.base import DualEncoder
from capkit.utils.ranges import PositiveFloat, check_ranges
from capkit.utils.renamed import takes_old_arguments


def clip_score(cosine: Float[Tensor, " B"], weight: float = 2.5) -> Float[Tensor, " B"]:
    """w max(cos(image, caption), 0): equation 1 of Hessel et al., w = 2.5 there and 2 in PAC-S."""
    return weight * cosine.clamp(min=0)


def ref_clip_score(
    cosine: Float[Tensor, " B"], reference_cosine: Float[Tensor, " B"], weight: float = 2.5
) -> Float[Tensor, " B"]:
    """Harmonic mean of the CLIPScore and max(0, best cosine of caption and reference); 0 if either is 0.

    The weight applies to the image side only, as in the authors' code. Some published repositories apply it to both:
    a caption at .31 from the image and .72 from its best reference then gets 1.083495 instead of .746488.
    """
    image_side, text_side = clip_score(cosine, weight), reference_cosine.clamp(min=0)
    total = image_side + text_side
    return torch.where(total > 0, 2 * image_side * text_side / total.clamp(min=1e-12), torch.zeros_like(total))


def best_reference_cosine(
    captions: Sequence[Float[Tensor, "_ D"]], references: Sequence[Sequence[str]], encoder: DualEncoder
) -> Float[Tensor, " B"]:
    """Largest cosine of each caption with its image's references; NaN if the image has none.

    `captions` holds the unit embeddings of each image's captions, `references` the texts of each image.
    """
    own = torch.cat(list(captions))
    texts = [text for image in references for text in image]
    encoded = encoder.encode_text(texts).to(own.device).float() if texts else own.new_empty(0, own.shape[1])
    others = encoded.split([len(image) for image in references])
    best = [
        (rows.float() @ other.T).amax(1) if len(other) else rows.new_full((len(rows),), torch.nan)
        for rows, other in zip(captions, others, strict=True)
    ]
    return torch.cat(best)


@takes_old_arguments
@check_ranges
class ClipScore(EmbeddingMetric):
    """Mean CLIPScore, and mean RefCLIPScore if every prediction has references.

    The papers prompt captions and references alike with "A photo depicts": set it on the encoder. PAC-S is this metric
    with weight=2 and an encoder with PAC's weights.
    """

    def __init__(self, encoder: DualEncoder, weight: PositiveFloat = 2.5, name: str = "clip_score") -> None:
        super().__init__(encoder, name)
        self.weight = weight

    def _reference_similarity(self, texts: Tensor, references: list[list[str]]) -> Tensor:
        """Best cosine of each caption with its references; NaN if it has none."""
        return best_reference_cosine(texts.split(1), references, self.encoder)

    def score_pairs(self, pairs: Pairs) -> dict[str, float]:
        cosine = (pairs.texts * pairs.images[pairs.owner]).sum(-1)
        numbers = {"mean": float(clip_score(cosine, self.weight).mean())}
        if not bool(pairs.reference.isnan().any()):
            numbers["ref"] = float(ref_clip_score(cosine, pairs.reference, self.weight).mean())
        return numbers
