"""The protocol of rating objectives.

B pictures, K captions of a picture.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor


@runtime_checkable
class RatingObjective(Protocol):
    """A loss of a rater's scores, summed, and what the step divides it by, over all micro-batches and ranks.

    `needs_scores`: whether grades must be comparable between pictures, as those of rankings are not. `grades` at places
    of `mask` that are False mean nothing.
    """

    needs_scores: bool

    def num_targets(self, grades: Float[Tensor, "B K"], mask: Bool[Tensor, "B K"]) -> Float[Tensor, ""]:
        """The divisor; known before the forward pass."""
        ...

    def __call__(
        self, scores: Float[Tensor, "B K"], grades: Float[Tensor, "B K"], mask: Bool[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """The summed loss, with gradient."""
        ...
