"""Pictures as people hold them: paths, bytes of files, Pillow images, arrays and tensors."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from capkit.data.images import BadImage, read_file, rgb_of
from capkit.data.jpeg import read_picture
from capkit.data.sources.folder import printable
from capkit.errors import UsageError
from capkit.utils.caller import warn_caller

Errors = Literal["warn", "raise"]
Picture = str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Tensor
_KINDS = "a path, the bytes of an image file, a Pillow image, an array (H, W, 3) or a tensor (3, H, W)"


@dataclass(frozen=True)
class GivenPicture:
    """A picture that is read when it is needed. `name` is what messages call it: its file, or its place in the list."""

    name: str
    source: Any

    def read(self) -> UInt8[np.ndarray, "H W 3"]:
        """Its pixels. Raises BadImage where a file or Pillow's image cannot be decoded."""
        if isinstance(self.source, np.ndarray):
            return np.require(self.source, requirements=("C", "W"))  # torch warns of arrays that are read-only
        if isinstance(self.source, Tensor):
            return np.ascontiguousarray(self.source.permute(1, 2, 0).cpu().numpy())
        if isinstance(self.source, Image.Image):
            return rgb_of(self.source)
        return read_picture(self.source if isinstance(self.source, bytes) else read_file(self.source)).rgb

    def key(self, pixels: UInt8[np.ndarray, "H W 3"]) -> str:
        """What draws depend on: the file's name, as in `capkit caption`; of other pictures a hash of the pixels."""
        if isinstance(self.source, Path):
            return printable(self.source.name)
        return hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=8).hexdigest()


def is_one(pictures: Any) -> bool:
    """Whether this is a picture, and not several: a list, or an array or tensor with a dimension more."""
    if isinstance(pictures, np.ndarray | Tensor):
        return pictures.ndim != 4
    return isinstance(pictures, str | os.PathLike | bytes | Image.Image)


def given_pictures(pictures: Picture | Iterable[Picture]) -> list[GivenPicture]:
    """One picture or several, none of them read yet; pixels are checked.

    Arrays are uint8 (H, W, 3), tensors uint8 (3, H, W) or floats in [0, 1]. Raises UsageError for anything else.
    """
    alone = is_one(pictures)
    is_file = isinstance(pictures, bytearray | memoryview) or hasattr(pictures, "read")
    if not alone and (is_file or isinstance(pictures, Mapping) or not isinstance(pictures, Iterable)):
        raise UsageError(f"expected {_KINDS}, or a list of these; got {_shown(pictures)}")
    listed: Sequence[Any] = [pictures] if alone else list(pictures)  # type: ignore[arg-type]
    return [_given(picture, "the picture" if alone else f"pictures[{place}]") for place, picture in enumerate(listed)]


@dataclass(frozen=True)
class Chunk:
    """Pictures that were read: their places in the list, keys and pixels."""

    places: list[int]
    keys: list[str]
    images: list[np.ndarray]


def read_in_chunks(given: Sequence[GivenPicture], size: int, errors: Errors, alone: bool) -> Iterator[Chunk]:
    """The pictures that can be read, `size` at a time; of the others a warning, or UsageError."""
    if errors not in ("warn", "raise"):
        raise UsageError(f"errors: expected warn or raise, got {errors!r}")
    if size < 1:
        raise UsageError(f"batch_size: expected 1 or more pictures, got {size}")
    for start in range(0, len(given), size):
        chunk = Chunk([], [], [])
        for place, picture in enumerate(given[start : start + size], start):
            try:
                pixels = picture.read()
            except BadImage as error:
                if alone or errors == "raise":
                    raise UsageError(f"{picture.name}: expected a picture that can be read, got: {error}") from error
                warn_caller(f"{picture.name} is left out: {error}")
                continue
            chunk.places.append(place)
            chunk.keys.append(picture.key(pixels))
            chunk.images.append(pixels)
        if chunk.places:
            yield chunk


def _given(picture: Any, place: str) -> GivenPicture:
    if isinstance(picture, str | os.PathLike):
        return GivenPicture(printable(os.fspath(picture)), Path(picture))
    if isinstance(picture, Image.Image):
        return GivenPicture(str(getattr(picture, "filename", "")) or place, picture)
    if isinstance(picture, bytes):
        return GivenPicture(place, picture)
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise UsageError(f"{place}: expected a uint8 array (H, W, 3), 0 to 255, got {_shown(picture)}; convert it")
        return GivenPicture(place, picture)
    if isinstance(picture, Tensor):
        return GivenPicture(place, _checked(picture.detach(), place))
    raise UsageError(f"{place}: expected {_KINDS}; got {_shown(picture)}")


def _checked(picture: Tensor, place: str) -> UInt8[Tensor, "3 H W"]:
    is_float = picture.is_floating_point()
    is_pixels = is_float or picture.dtype == torch.uint8
    if picture.ndim != 3 or picture.shape[0] != 3 or not picture.numel() or not is_pixels:
        raise UsageError(
            f"{place}: expected a tensor (3, H, W), uint8 or floats in [0, 1], got {_shown(picture)}; "
            "permute(2, 0, 1) puts the channels first"
        )
    if not is_float:
        return picture
    low, high = picture.min().item(), picture.max().item()
    if not (low >= 0 and high <= 1):  # NaN too
        raise UsageError(
            f"{place}: expected floats in [0, 1], got {low:.3g} to {high:.3g}; give pixels before they are normalised"
        )
    return (picture * 255).round().to(torch.uint8)


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray | Tensor):
        return f"{type(value).__name__} {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"{type(value).__name__} {value!r}"[:80]
