"""What a scorer must offer."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from capkit.types import CaptionBatch, Samples


@runtime_checkable
class Scorer(Protocol):
    """Higher is better; NaN means that a caption could not be scored."""

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]: ...
