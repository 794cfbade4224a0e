"""Regression of a rater's scores on given ones.

B pictures, K captions of a picture.
"""

from jaxtyping import Bool, Float
from torch import Tensor


class Regression:
    """(f(caption) - score)^2, the mean over the captions of the global batch."""

    needs_scores = True

    def num_targets(self, grades: Float[Tensor, "B K"], mask: Bool[Tensor, "B K"]) -> Float[Tensor, ""]:
        return mask.sum().float()

    def __call__(
        self, scores: Float[Tensor, "B K"], grades: Float[Tensor, "B K"], mask: Bool[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        return (scores - grades).masked_fill(~mask, 0.0).square().sum()
