"""Decode any image file to a uint8 RGB array. A table in docs/data.md lists the handling of unusual images."""

import io
import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif"),
)
# Pure pixel decoders only: Pillow's EPS reader, for instance, starts Ghostscript. HEIF needs a plugin.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "HEIF")
MAX_PIXELS = 89_478_485  # Pillow's own limit for a likely decompression bomb: 256 MiB of RGB
MAX_BYTES = 2**30  # file size limit: more than MAX_PIXELS uncompressed samples of 4 x 16 bits
LARGE_PIXELS = 2**24  # larger images are downscaled while decoding
_STRIP_PIXELS = 2**22  # a large image is converted in strips of this size

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_GDAL_NODATA = 42113  # TIFF tag with the value that marks samples without data
_DEPTHS = (8, 10, 12, 14, 16)  # bit depths of sensors

ToRGB = Callable[[Image.Image], Image.Image]
T = TypeVar("T")


class Turn(NamedTuple):
    """How an array is turned upright: rows and columns change places first, then rows or columns are reversed."""

    exchanges: bool = False
    reverses_rows: bool = False
    reverses_columns: bool = False


_TURNS = {
    2: Turn(False, False, True),
    3: Turn(False, True, True),
    4: Turn(False, True, False),
    5: Turn(True, False, False),
    6: Turn(True, False, True),
    7: Turn(True, True, True),
    8: Turn(True, True, False),
}


def turn_of(orientation: int | None) -> Turn:
    """The turn of an EXIF orientation; none for 1, and for a value that EXIF does not define."""
    return Turn() if orientation is None else _TURNS.get(orientation, Turn())


class BadImage(Exception):
    """An unusable image; the message is the reason listed in skipped.jsonl."""


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file. Raises BadImage for anything else: a pipe could block, a device never end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise BadImage(error.strerror or type(error).__name__) from error
    except ValueError as error:  # NUL or a lone surrogate in the name
        raise BadImage(f"no file has such a name ({error})") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise BadImage("a directory, not a file" if stat.S_ISDIR(mode) else "a pipe or device, not a regular file")
    return os.fdopen(descriptor, "rb")


def read_part(file: BinaryIO, offset: int, size: int) -> bytes:
    """Read a part of a file. Raises BadImage if it is longer than MAX_BYTES or cannot be read."""
    if size > MAX_BYTES:
        raise BadImage(f"{size:,} bytes: more than {MAX_BYTES:,}")
    try:
        file.seek(offset)
        return file.read(size)
    except OSError as error:
        raise BadImage(error.strerror or type(error).__name__) from error


def read_file(path: str | Path) -> bytes:
    """All bytes of a regular file. Raises BadImage as `open_regular` and `read_part` do."""
    with open_regular(path) as file:
        return read_part(file, 0, os.fstat(file.fileno()).st_size)


def load_rgb(source: str | Path | bytes) -> UInt8[np.ndarray, "H W 3"]:
    """Decode an image file (or its bytes) to 8-bit RGB, rotated by its EXIF tag, with transparency on white.

    Takes the first frame of an animation. Grey samples of more than 8 bits are scaled by `_grey_scale`; 16-bit colour
    keeps its high byte. An image of more than LARGE_PIXELS is reduced to half its width and height, one of more than
    four times as many to a quarter. Raises BadImage with the reason.
    """
    return _read(source, _decode)


def rgb_of(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """A picture that Pillow holds, as `load_rgb` gives that of a file. Raises BadImage where it cannot be decoded."""
    try:
        return _upright_rgb(image, reduction_of(*image.size))
    except BadImage:
        raise
    except Exception as error:  # it may be a file that is decoded only now
        raise BadImage(f"cannot be decoded: {str(error) or type(error).__name__}") from error


def image_size(source: str | Path | bytes) -> tuple[int, int]:
    """Width and height in pixels of an image file (or its bytes), rotated by its EXIF tag, before any reduction.

    Decodes no pixels, except of PNG, whose tag may stand behind them: damage may go unnoticed. Raises BadImage with the
    reason.
    """
    return _read(source, _decode_size)


def orientation_of(data: bytes) -> int | None:
    """The EXIF orientation of an image file's bytes, 1 to 8; None without one. Raises BadImage as `load_rgb` does."""
    return _read(data, _decode_orientation)


def format_of(data: bytes) -> str:
    """Pillow's name of an image file's format, e.g. JPEG. Raises BadImage as `load_rgb` does."""
    return _read(data, _decode_format)


def _decode_format(data: bytes) -> str:
    with _opened(data) as image:
        return str(image.format)


def _read(source: str | Path | bytes, decode: Callable[[bytes], T]) -> T:
    if not isinstance(source, bytes):
        source = read_file(source)
    if not source:
        raise BadImage("empty file (0 bytes)")
    try:
        return decode(source)
    except BadImage:
        raise
    except Image.UnidentifiedImageError as error:
        raise BadImage(f"not an image of a format that is read ({', '.join(FORMATS)})") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadImage(f"more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # decoders of hostile files raise nearly everything: OSError, SyntaxError, struct.error
        raise BadImage(f"cannot be decoded: {str(error) or type(error).__name__}") from error


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    Image.init()  # idempotent; a format that is not registered makes Image.open raise
    formats = [name for name in FORMATS if name in Image.OPEN]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data), formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(f"{image.width} x {image.height}: more than {MAX_PIXELS:,} pixels")
            yield image


def _decode_size(data: bytes) -> tuple[int, int]:
    with _opened(data) as image:
        turn = turn_of(_orientation(image))
        return (image.height, image.width) if turn.exchanges else (image.width, image.height)


def _decode_orientation(data: bytes) -> int | None:
    with _opened(data) as image:
        return _orientation(image)


def _orientation(image: Image.Image) -> int | None:
    return image.getexif().get(ExifTags.Base.Orientation)


def _decode(data: bytes) -> np.ndarray:
    with _opened(data) as image:
        size = image.size
        factor = reduction_of(*size)
        if factor > 1:
            image.draft(None, (image.width // factor, image.height // factor))  # JPEG decodes at a reduced size
        return _upright_rgb(image, factor if image.size == size else 1)


def _upright_rgb(image: Image.Image, factor: int) -> np.ndarray:
    tiles = getattr(image, "tile", ())  # none once it is loaded
    is_deep_colour = not image.mode.startswith("I") and any(";16" in str(tile[3]) for tile in tiles)
    image.load()
    if is_deep_colour:
        _check_depth(image)
    orientation = _orientation(image)
    rgb = _reduced(image, _converter(image), factor)
    if orientation in _TRANSPOSITIONS:
        rgb = rgb.transpose(_TRANSPOSITIONS[orientation])
    return np.array(rgb, dtype=np.uint8)


def reduction_of(width: int, height: int) -> int:
    """By how much height and width of a picture of this size are reduced: 1, 2 or 4."""
    if width * height <= LARGE_PIXELS:
        return 1
    return 2 if width * height <= 4 * LARGE_PIXELS else 4


def _reduced(image: Image.Image, to_rgb: ToRGB, factor: int) -> Image.Image:
    """Convert to RGB and average blocks of factor x factor pixels, in strips to limit memory."""
    if factor == 1:
        return to_rgb(image)
    rgb = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    rows = max(1, _STRIP_PIXELS // image.width // factor) * factor
    for top in range(0, image.height, rows):
        strip = to_rgb(image.crop((0, top, image.width, min(top + rows, image.height))))
        rgb.paste(strip.reduce(factor), (0, top // factor))
    return rgb


def _converter(image: Image.Image) -> ToRGB:
    """The function that converts this image, or a strip of it, to RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_converter(image)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        return _on_white
    return lambda part: part.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _grey_converter(image: Image.Image) -> ToRGB:
    no_data = _no_data_value(image)
    samples = np.asarray(image)
    step = 1 + math.isqrt((samples.size - 1) // LARGE_PIXELS)
    measured = samples[::step, ::step]
    measured = measured[_has_data(measured, no_data)]
    if not measured.size:
        raise BadImage("no sample has a finite value")
    black, gain, to_integer = _grey_scale(measured)

    def convert(part: Image.Image) -> Image.Image:
        samples = np.asarray(part)
        with np.errstate(invalid="ignore", over="ignore"):
            levels = to_integer((samples.astype(np.float32) - np.float32(black)) * np.float32(gain))
        levels[~_has_data(samples, no_data)] = 0
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")

    return convert


def _no_data_value(image: Image.Image) -> float | None:
    try:
        return float(str(image.tag_v2[_GDAL_NODATA]).strip("\0 ")) if isinstance(image, TiffImageFile) else None
    except (KeyError, ValueError):
        return None


def _has_data(samples: np.ndarray, no_data: float | None) -> Bool[np.ndarray, "..."]:
    finite = np.isfinite(samples)
    return finite if no_data is None else finite & (samples != no_data)


def _grey_scale(samples: np.ndarray) -> tuple[float, float, np.ufunc]:
    """(black, gain, rounding) of grey samples that Pillow would clip at 255: level = rounding((x - black) gain).

    `high` and `low` are the 99.9 % and 0.1 % quantiles, so that single hot or dead pixels have no influence.

    - Integers: the high byte of the smallest depth of 8, 10, 12, 14 or 16 bits that holds `high`, since sensors often
      use fewer bits than the file.
    - Floats: the range [0, 1] or [0, 255], if `high` is between 1/16 and 5/4 of its upper end and `low` is not below
      -`high` / 4.
    - Anything else, such as elevations or negative numbers: `low` maps to 0, `high` to 255.
    """
    low, high = (float(x) for x in np.quantile(samples, (0.001, 0.999), method="nearest"))
    if np.issubdtype(samples.dtype, np.integer):
        for bits in _DEPTHS:
            if low >= 0 and high < 2**bits:
                return 0.0, 256 / 2**bits, np.floor
    else:
        for white in (1.0, 255.0):
            if (white / 16 <= high <= white * 5 / 4 and low >= -high / 4) or low == high == 0:
                return 0.0, 255 / white, np.rint
    return low, 255 / (high - low) if high > low else 0.0, np.rint


def _check_depth(image: Image.Image) -> None:
    """Raise BadImage for dark colour of 16 bits per sample, of which Pillow reads only the high byte."""
    counts = np.array(image.histogram()).reshape(-1, 256)[: len(image.getbands()) - image.has_transparency_data]
    if counts[:, 16:].sum() < 0.001 * counts.sum():
        raise BadImage("colour of 16 bits a sample that uses 12 or fewer; save it with 8 bits a sample")
