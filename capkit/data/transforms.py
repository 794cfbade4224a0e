"""Transform images to model input: resize and crop to a square, augment by a per-example seed, normalise in batches."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from capkit.data.placement import Placement
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
        augment: In training only: one name, or a list. "flip" mirrors half of the images, but none whose captions say
            left or right, unless the source knows what they say of the mirror image (docs/data.md). "crop" takes any
            `size` x `size` pixels of `crop_from` in place of the middle ones; without `crop_from` it replaces `resize`
            by a random crop of 50 to 100 % of the area, aspect 3:4 to 4:3. "square" takes any square as large as that
            of `resize=crop` in its place, as CLIP does (Radford et al. 2021, section 2.4).
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
        if not set(names) <= {"flip", "crop", "square"} or len(set(names)) < len(names):
            raise UsageError(f"augment must be flip, crop, square, a list of them, or null; got {augment!r}")
        if "square" in names and (resize != "crop" or "crop" in names):
            raise UsageError(
                f"augment=square moves the square of resize=crop; got resize={resize} and augment={augment!r}; "
                "set resize=crop, and leave augment=crop out"
            )
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
        self,
        image: UInt8[np.ndarray, "H W 3"],
        random_key: tuple[object, ...] | None = None,
        full_size: tuple[int, int] | None = None,
        scale: float = 1.0,
    ) -> UInt8[Tensor, "3 S S"]:
        """The square image. `random_key`, e.g. (seed, epoch, index), seeds the augmentation; None disables it.

        `full_size` and `scale` as in `place`.
        """
        height, width = full_size or image.shape[:2]
        return self.place(image, self.placement(height, width, random_key), scale)

    def placement(self, height: int, width: int, random_key: tuple[object, ...] | None = None) -> Placement:
        """How a picture of this size is placed; it says where the boxes of its regions come to lie.

        `random_key` as for the picture itself.
        """
        target = self.crop_from or self.size
        placed = Placement((height, width), 0, 0, (height, width), (target, target), self.size)
        random = generator(*random_key, "augment") if random_key is not None and self.augment else None
        if random is not None and "crop" in self.augment and self.crop_from is None:
            placed = replace(placed, **_random_crop(height, width, random))
        elif self.resize == "crop":
            # Crop first: resizing a 1 x 10,000 strip to the target height first would need gigabytes.
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            if random is not None and "square" in self.augment:
                top, left = (int(random.integers(length - side + 1)) for length in (height, width))
            placed = replace(placed, top=top, left=left, part=(side, side))
        elif self.resize == "pad" and height != width:
            new = (
                max(1, round(target * height / max(height, width))),
                max(1, round(target * width / max(height, width))),
            )
            placed = replace(placed, resized=new, down=(target - new[0]) // 2, right=(target - new[1]) // 2)
        up, left = (target - self.size) // 2, (target - self.size) // 2
        if random is not None and "crop" in self.augment and self.crop_from is not None:
            up, left = random.integers(target - self.size + 1, size=2).tolist()
        mirrored = random is not None and "flip" in self.augment and bool(random.random() < 0.5)
        return replace(placed, down=placed.down - up, right=placed.right - left, mirrored=mirrored)

    def place(self, image: UInt8[np.ndarray, "H W 3"], placed: Placement, scale: float = 1.0) -> UInt8[Tensor, "3 S S"]:
        """The square image of a picture that is placed so.

        One that was decoded at a reduced size comes with its `scale`, its share of the full height and width: the same
        part of it is taken, to a fraction of a pixel.
        """
        edges = (placed.left, placed.top, placed.left + placed.part[1], placed.top + placed.part[0])
        left, top, right, bottom = (edge * scale for edge in edges)
        if all(edge.is_integer() for edge in (left, top, right, bottom)):
            pixels = torch.from_numpy(image[int(top) : int(bottom), int(left) : int(right)]).permute(2, 0, 1)
            pixels = self._to_size(pixels, *placed.resized)
        else:  # torchvision takes whole pixels only
            size = placed.resized[::-1]
            part = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom))
            pixels = torch.from_numpy(np.array(part)).permute(2, 0, 1)
        return self._on_canvas(pixels, placed)

    @property
    def keeps_shares(self) -> bool:
        """Whether, without augmentation, boxes lie in the square as in the picture, whatever its size."""
        return self.resize == "squash" and self.crop_from in (None, self.size)

    def fraction(self, height: int, width: int, random_key: tuple[object, ...] | None = None) -> float:
        """The share of its height and width that a picture needs, so that no part of it is enlarged more than now.

        `random_key` as for the picture itself. Above 1 where the picture is too small.
        """
        placed = self.placement(height, width, random_key)
        return max(new / old for new, old in zip(placed.resized, placed.part, strict=True))

    def _on_canvas(self, pixels: UInt8[Tensor, "3 h w"], placed: Placement) -> UInt8[Tensor, "3 S S"]:
        """Cut off what lies outside of the square, fill what is left of it with white."""
        rows, columns = (
            _overlap(placed.down, pixels.shape[1], self.size),
            _overlap(placed.right, pixels.shape[2], self.size),
        )
        part = pixels[
            :,
            rows.start - placed.down : rows.stop - placed.down,
            columns.start - placed.right : columns.stop - placed.right,
        ]
        if part.shape[1:] != (self.size, self.size):
            square = torch.full((3, self.size, self.size), 255, dtype=torch.uint8)
            square[:, rows, columns] = part
            part = square
        return part.flip(-1) if placed.mirrored else part

    def _to_size(self, pixels: Tensor, height: int, width: int) -> Tensor:
        if pixels.shape[1:] == (height, width):
            return pixels
        return F.resize(pixels, [height, width], InterpolationMode.BICUBIC, antialias=True)

    def normalize(self, images: UInt8[Tensor, "B 3 S S"]) -> Float[Tensor, "B 3 S S"]:
        """Normalise a batch to (pixel / 255 - mean) / std, on the device where it is."""
        scale, shift = self._scale.to(images.device), self._shift.to(images.device)
        return images.to(torch.float32, memory_format=torch.contiguous_format).mul_(scale).add_(shift)


def _random_crop(height: int, width: int, random: np.random.Generator) -> dict[str, Any]:
    """Top, left and part of 50 to 100 % of the area."""
    area, aspect = random.uniform(0.5, 1.0) * height * width, np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
    crop_height = int(np.clip(round(np.sqrt(area / aspect)), 1, height))
    crop_width = int(np.clip(round(np.sqrt(area * aspect)), 1, width))
    top, left = random.integers(height - crop_height + 1), random.integers(width - crop_width + 1)
    return {"top": int(top), "left": int(left), "part": (crop_height, crop_width)}


def _overlap(start: int, length: int, size: int) -> slice:
    """The part of 0 .. size that start .. start + length covers."""
    return slice(max(0, start), min(size, start + length))
