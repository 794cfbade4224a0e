"""Any image file to one uint8 RGB array. What happens to each odd kind of image is a table in docs/data.md."""

import io
import math
import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif"),
)
# Decoders of pixels, nothing else: Pillow's EPS reader, for one, starts Ghostscript. HEIF is there with a plugin only.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "HEIF")
MAX_PIXELS = 89_478_485  # Pillow's own limit for a likely decompression bomb: 256 MiB of RGB
MAX_BYTES = 2**30  # of a file: more than MAX_PIXELS uncompressed samples of 4 x 16 bits
LARGE_PIXELS = 2**24  # above it an image is reduced while it is decoded
_STRIP_PIXELS = 2**22  # of a large image, converted at once

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_GDAL_NODATA = 42113  # the TIFF tag that names the value of samples without data
_DEPTHS = (8, 10, 12, 14, 16)  # bits of a sensor's samples

ToRGB = Callable[[Image.Image], Image.Image]


class BadImage(Exception):
    """An image that cannot be used; the message is the reason that skipped.jsonl gives."""


def open_regular(path: str | Path) -> BinaryIO:
    """Opens a regular file. Raises BadImage for all else: a named pipe would be waited for, a device may never end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise BadImage(error.strerror or type(error).__name__) from error
    except ValueError as error:  # NUL, or half of a surrogate pair
        raise BadImage(f"no file has such a name ({error})") from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise BadImage("a directory, not a file" if stat.S_ISDIR(mode) else "a pipe or device, not a regular file")
    return os.fdopen(descriptor, "rb")


def read_part(file: BinaryIO, offset: int, size: int) -> bytes:
    """Raises BadImage where the part is longer than MAX_BYTES or cannot be read."""
    if size > MAX_BYTES:
        raise BadImage(f"{size:,} bytes: more than {MAX_BYTES:,}")
    try:
        file.seek(offset)
        return file.read(size)
    except OSError as error:
        raise BadImage(error.strerror or type(error).__name__) from error


def load_rgb(source: str | Path | bytes) -> UInt8[np.ndarray, "H W 3"]:
    """Reads an image file (or its bytes) as 8-bit RGB, upright by its EXIF tag, transparency laid on white.

    Of an animation the first frame is taken. Grey samples of more than 8 bits are scaled as `_grey_scale` says; of
    16-bit colour the high byte is taken. An image of more than LARGE_PIXELS comes at half its width and height, of more
    than four times as many at a quarter. Raises BadImage with the reason.
    """
    if not isinstance(source, bytes):
        with open_regular(source) as file:
            source = read_part(file, 0, os.fstat(file.fileno()).st_size)
    if not source:
        raise BadImage("empty file (0 bytes)")
    try:
        return _decode(source)
    except BadImage:
        raise
    except Image.UnidentifiedImageError as error:
        raise BadImage(f"not an image of a format that is read ({', '.join(FORMATS)})") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadImage(f"more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # decoders of hostile files raise nearly everything: OSError, SyntaxError, struct.error
        raise BadImage(f"cannot be decoded: {str(error) or type(error).__name__}") from error


def _decode(data: bytes) -> np.ndarray:
    Image.init()  # idempotent; a format that is not registered makes Image.open raise
    formats = [name for name in FORMATS if name in Image.OPEN]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data), formats=formats) as image:
            size = image.size
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(f"{image.width} x {image.height}: more than {MAX_PIXELS:,} pixels")
            factor = _reduction(*size)
            if factor > 1:
                image.draft(None, (image.width // factor, image.height // factor))  # JPEG decodes at a reduced size
            is_deep_colour = not image.mode.startswith("I") and any(";16" in str(tile[3]) for tile in image.tile)  # type: ignore[attr-defined]
            image.load()
            if is_deep_colour:
                _check_depth(image)
            orientation = image.getexif().get(ExifTags.Base.Orientation)
            rgb = _reduced(image, _converter(image), factor if image.size == size else 1)
            if orientation in _TRANSPOSITIONS:
                rgb = rgb.transpose(_TRANSPOSITIONS[orientation])
            return np.array(rgb, dtype=np.uint8)


def _reduction(width: int, height: int) -> int:
    if width * height <= LARGE_PIXELS:
        return 1
    return 2 if width * height <= 4 * LARGE_PIXELS else 4


def _reduced(image: Image.Image, to_rgb: ToRGB, factor: int) -> Image.Image:
    """The RGB image, each pixel the mean of factor x factor. It is converted strip by strip, to be held only once."""
    if factor == 1:
        return to_rgb(image)
    rgb = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    rows = max(1, _STRIP_PIXELS // image.width // factor) * factor
    for top in range(0, image.height, rows):
        strip = to_rgb(image.crop((0, top, image.width, min(top + rows, image.height))))
        rgb.paste(strip.reduce(factor), (0, top // factor))
    return rgb


def _converter(image: Image.Image) -> ToRGB:
    """What brings this image, or a strip of it, to RGB."""
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
    """(black, gain, rounding) of grey samples that Pillow itself would clip at 255: level = rounding((x - black) gain).

    `high` and `low` are the 99.9 % and 0.1 % quantiles, so that single hot or dead pixels decide nothing.

    - Integers: the high byte of the fewest of 8, 10, 12, 14 or 16 bits that hold `high`: a sensor's samples are often
      fewer bits than their file's.
    - Floats: [0, 1] or [0, 255], where `high` lies between a 16th and 5/4 of the upper end and `low` is not below 0 by
      more than a quarter of `high`.
    - Whatever else, as elevations or negative numbers: `low` becomes 0, `high` 255.
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
    """Raises BadImage for dark colour of 16 bits a sample: Pillow reads its high byte alone."""
    counts = np.array(image.histogram()).reshape(-1, 256)[: len(image.getbands()) - image.has_transparency_data]
    if counts[:, 16:].sum() < 0.001 * counts.sum():
        raise BadImage("colour of 16 bits a sample that uses 12 or fewer; save it with 8 bits a sample")
