"""Scores of pairs of images that must be matched with their two captions (Winoground: Thrush et al. 2022, 2204.03162).

P pairs.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from capkit.metrics.ranking import TIE_TOLERANCE


@dataclass(frozen=True)
class PairScores:
    """For each pair, whether both images find their caption (text), both captions their image (image), or all (group).

    Chance, with similarities in random order: 1/4, 1/4 and 1/6.
    """

    text: Bool[Tensor, " P"]
    image: Bool[Tensor, " P"]

    @property
    def group(self) -> Bool[Tensor, " P"]:
        return self.text & self.image

    def means(self) -> dict[str, float]:
        return {name: float(getattr(self, name).double().mean()) for name in ("text", "image", "group")}


def pair_scores(similarity: Float[Tensor, "P 2 2"]) -> PairScores:
    """Equations 1 to 3 of the Winoground paper; `similarity[p, i, c]` is that of image i and caption c.

    A tie (within TIE_TOLERANCE) is a miss, as there: an encoder to which all is alike scores 0, and not chance.
    """
    own, other_caption = similarity.diagonal(dim1=1, dim2=2), similarity.flip(2).diagonal(dim1=1, dim2=2)
    other_image = similarity.flip(1).diagonal(dim1=1, dim2=2)  # of caption c: the image that is not its own
    return PairScores(
        text=(own - other_caption > TIE_TOLERANCE).all(1), image=(own - other_image > TIE_TOLERANCE).all(1)
    )
