"""What raters share that read pixels: an ImageTransform of their own, and no cached features.

N pictures, H and W in pixels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.models.raters.base import Rater
from capkit.types import CaptionBatch


class PixelRater(Rater):
    _transform: Any  # an ImageTransform

    @property
    def transform(self) -> Any:
        return self._transform

    def about_features(self) -> dict[str, Any]:
        raise UsageError(f"{type(self).__name__} reads pixels, got cached features; set data.features=null")

    def preprocess(self, images: Sequence[Any]) -> Float[Tensor, "N 3 H W"]:
        own = self._transform
        return own.normalize(torch.stack([own(np.ascontiguousarray(np.asarray(image))) for image in images]))

    def pixels_of(self, batch: CaptionBatch) -> Float[Tensor, "N 3 H W"]:
        """The batch's pictures. Raises UsageError where it has none."""
        if batch.pixels is None:
            raise UsageError(
                f"{type(self).__name__} reads pixels, got a batch without any; set data.transform, data.features=null"
            )
        return batch.pixels
