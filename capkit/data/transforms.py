"""Transform images to model input: resize and crop to a square, augment by a per-example seed, normalise in batches."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from capkit.errors import UsageError
from capkit.utils.ranges import FiniteFloat, Length, PositiveFloat, PositiveInt, check_ranges
from capkit.utils.rng import generator


@check_ranges
class ImageTransform:
    """Resize images to `size` x `size` pixels, and normalise batches to (pixel / 255 - mean) / std.

    Resizing is bicubic with antialiasing.

    Args:
        size: Width and height in pixels.
        crop_from: Resize to this width and height and take the middle `size` x `size` pixels; null: take all.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel, of pixels in [0, 1].
        resize: "squash" changes the aspect ratio, "crop" takes the central square, "pad" adds white borders.
        augment: In training only: one name, or a list. "flip" mirrors half of the images, which makes captions with
            "left" or "right" wrong. "crop" takes any `size` x `size` pixels of `crop_from` in place of the middle ones;
            without `crop_from` it replaces `resize` by a random crop of 50 to 100 % of the area, aspect 3:4 to 4:3.
    """

    def __init__(
        self,
        size: PositiveInt,
        mean: Annotated[Sequence[FiniteFloat], Length(3)] = (0.5, 0.5, 0.5),
        std: Annotated[Sequence[PositiveFloat], Length(3)] = (0.5, 0.5, 0.5),
        resize: str = "squash",
        augment: str | Sequence[str] | None = None,
        crop_from: PositiveInt | None = None,
    ) -> None:
        if resize not in ("squash", "crop", "pad"):
            raise UsageError(f"resize must be squash, crop or pad; got {resize!r}")
        names = [augment] if isinstance(augment, str) else list(augment or ())
        if not set(names) <= {"flip", "crop"} or len(set(names)) < len(names):
            raise UsageError(f"augment must be flip, crop, [crop, flip] or null; got {augment!r}")
        if crop_from is not None and crop_from < size:
            raise UsageError(f"crop_from must be at least size={size}, the crop's side; got {crop_from}")
        self.size, self.resize, self.crop_from, self.augment = size, resize, crop_from, names
        self.mean, self.std = tuple(mean), tuple(std)
        self._scale = 1 / (255 * torch.tensor(std, dtype=torch.float32).view(3, 1, 1))
        self._shift = -(torch.tensor(mean, dtype=torch.float32) / torch.tensor(std)).view(3, 1, 1)

    def fingerprint_fields(self) -> dict[str, object]:
        """Everything that unaugmented pixels depend on, as plain data."""
        fields = {"size": self.size, "resize": self.resize, "mean": list(self.mean), "std": list(self.std)}
        return fields if self.crop_from is None else {**fields, "crop_from": self.crop_from}

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], random_key: tuple[object, ...] | None = None
    ) -> UInt8[Tensor, "3 S S"]:
        """The square image. `random_key`, e.g. (seed, epoch, index), seeds the augmentation; None disables it."""
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        if random_key is None or not self.augment:
            return self._middle(self._square(pixels))
        random = generator(*random_key, "augment")
        if "crop" not in self.augment:
            pixels = self._middle(self._square(pixels))
        elif self.crop_from is not None:
            top, left = random.integers(self.crop_from - self.size + 1, size=2).tolist()
            pixels = self._window(self._square(pixels), top, left)
        else:
            pixels = self._to_size(_random_crop(pixels, random), self.size, self.size)
        return pixels.flip(-1) if "flip" in self.augment and random.random() < 0.5 else pixels

    def _middle(self, pixels: Tensor) -> Tensor:
        margin = (pixels.shape[-1] - self.size) // 2
        return self._window(pixels, margin, margin)

    def _window(self, pixels: Tensor, top: int, left: int) -> Tensor:
        return pixels[:, top : top + self.size, left : left + self.size]

    def _square(self, pixels: Tensor) -> Tensor:
        """The image as a square of `crop_from` x `crop_from` pixels, or of `size` x `size`."""
        target = self.crop_from or self.size
        height, width = pixels.shape[1:]
        if self.resize == "crop":
            # Crop first: resizing a 1 x 10,000 strip to the target height first would need gigabytes.
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            pixels = pixels[:, top : top + side, left : left + side]
        if self.resize != "pad" or height == width:
            return self._to_size(pixels, target, target)
        new_height, new_width = (max(1, round(target * n / max(height, width))) for n in (height, width))
        square = torch.full((3, target, target), 255, dtype=torch.uint8)
        top, left = (target - new_height) // 2, (target - new_width) // 2
        square[:, top : top + new_height, left : left + new_width] = self._to_size(pixels, new_height, new_width)
        return square

    def _to_size(self, pixels: Tensor, height: int, width: int) -> Tensor:
        if pixels.shape[1:] == (height, width):
            return pixels
        return F.resize(pixels, [height, width], InterpolationMode.BICUBIC, antialias=True)

    def normalize(self, images: UInt8[Tensor, "B 3 S S"]) -> Float[Tensor, "B 3 S S"]:
        """Normalise a batch to (pixel / 255 - mean) / std."""
        return images.to(torch.float32, memory_format=torch.contiguous_format).mul_(self._scale).add_(self._shift)


def _random_crop(pixels: Tensor, random: np.random.Generator) -> Tensor:
    height, width = pixels.shape[1:]
    area, aspect = random.uniform(0.5, 1.0) * height * width, np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
    crop_height = int(np.clip(round(np.sqrt(area / aspect)), 1, height))
    crop_width = int(np.clip(round(np.sqrt(area * aspect)), 1, width))
    top, left = random.integers(height - crop_height + 1), random.integers(width - crop_width + 1)
    return pixels[:, top : top + crop_height, left : left + crop_width]
