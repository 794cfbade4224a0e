"""What `data.features` keeps of an image: a frozen image encoder's tokens, or a dual encoder's finished embedding."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.models.dual_encoders.base import CacheableEncoder
from capkit.models.weights import weights_fingerprint
from capkit.utils.tensors import default_device


class ImageFeatures:
    """Pictures to features (n, N, W), by any encoder that `image_encoder` may name.

    An image encoder (pixels to tokens) reads the data's transform, without augmentation. A dual encoder reads pictures
    in its own way and gives one row an image, its embedding (N = 1).

    `about` says what the features depend on. A model that is to be trained on them compares its own weights with
    `about["weights"]` (`FeatureStore.check`), so that features of other weights are refused.
    """

    def __init__(self, encoder: Any, config: dict[str, Any], transform: ImageTransform | None, looks: Any) -> None:
        """`config` is the encoder's, `looks` the transform's: what their constructors were given."""
        self._is_dual = isinstance(encoder, CacheableEncoder)
        if not self._is_dual and transform is None:
            raise UsageError(
                "data.features are made from pixels: add data.transform (size, mean and std of the encoder)"
            )
        self._device = default_device()
        encoder.to(self._device)
        if isinstance(encoder, nn.Module):
            encoder.eval()
        self._encoder, self._transform = encoder, transform
        self.dtype = "float32" if self._is_dual else "float16"  # one row an image: precision costs little
        if self._is_dual:
            self.about = encoder.fingerprint_fields("image")
        else:
            self.about = {"encoder": config, "transform": looks, "weights": weights_fingerprint(encoder)}

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[np.ndarray]) -> Float[Tensor, "n N W"]:
        if self._is_dual:
            return self._encoder.encode_image(self._encoder.preprocess(pictures).to(self._device))[:, None].float()
        assert self._transform is not None
        pixels = self._transform.normalize(torch.stack([self._transform(picture) for picture in pictures]))
        return self._encoder(pixels.to(self._device)).float()
