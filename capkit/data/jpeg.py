"""Decode JPEG files by libjpeg-turbo directly: faster than through Pillow, and at a reduced size where that is wanted.

libjpeg-turbo reads what needs no judgement: intact JPEG of RGB, YCbCr or grey. Everything else (CMYK, files that are
damaged, any other format) is Pillow's, by `load_rgb`: what is read and what is refused, and why, does not depend on the
decoder.
"""

import struct
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import UInt8

from capkit.data.images import MAX_PIXELS, Turn, load_rgb, orientation_of, reduction_of, turn_of

Decoder = Literal["turbo", "scaled", "pillow"]
_COLORSPACES = ("YCbCr", "RGB", "Gray")
_EIGHTHS = (1, 2, 4, 8)  # other sizes have no SIMD code: they take longer than the full size
_APP1, _SOS = 0xE1, 0xDA


class Picture(NamedTuple):
    """8-bit RGB, upright, the height and width that the picture would have at full size, and its share of that."""

    rgb: UInt8[np.ndarray, "H W 3"]
    full_size: tuple[int, int]
    scale: float = 1.0


def read_picture(data: bytes, fraction_for: Callable[[int, int], float] | None = None) -> Picture:
    """Decode a picture file as `load_rgb` does, JPEG by libjpeg-turbo; pixels are equal.

    `fraction_for(height, width)` of the upright picture is the least share of its height and width that is needed: a
    JPEG is then decoded at 1/8, 1/4, 1/2 or all of its size by a smaller inverse DCT (the mean of its pixels, roughly).
    Raises BadImage as `load_rgb` does.
    """
    try:
        found = _read_jpeg(data, fraction_for)
    except ValueError:  # damaged, or of a kind that libjpeg-turbo does not read
        found = None
    if found is None:
        rgb = load_rgb(data)
        return Picture(rgb, rgb.shape[:2])
    return found


def _read_jpeg(data: bytes, fraction_for: Callable[[int, int], float] | None) -> Picture | None:
    """None if the file is Pillow's to judge. Raises ValueError for a damaged one."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    if colorspace not in _COLORSPACES or height * width > MAX_PIXELS:
        return None
    turn = turn_of(orientation_of(data) if _has_metadata(data) else None)
    full_size = (width, height) if turn.exchanges else (height, width)
    eighths = 8 // reduction_of(width, height)
    if fraction_for is None:
        full_size, scale = (-(-full_size[0] * eighths // 8), -(-full_size[1] * eighths // 8)), 1.0
    else:
        fraction = fraction_for(*full_size)
        eighths = min(eighths, next(size for size in _EIGHTHS if size >= 8 * min(1.0, fraction)))
        scale = eighths / 8
    least = (0, 0) if eighths == 8 else (-(-height * eighths // 8), -(-width * eighths // 8))  # 0: all of it
    rgb = simplejpeg.decode_jpeg(data, "RGB", min_height=least[0], min_width=least[1])
    return Picture(_upright(rgb, turn), full_size, scale)


def _upright(rgb: UInt8[np.ndarray, "h w 3"], turn: Turn) -> UInt8[np.ndarray, "H W 3"]:
    if turn.exchanges:
        rgb = rgb.transpose(1, 0, 2)
    return np.ascontiguousarray(rgb[:: -1 if turn.reverses_rows else 1, :: -1 if turn.reverses_columns else 1])


def _has_metadata(data: bytes) -> bool:
    """Whether an APP1 segment (EXIF or XMP), which may say how the picture is turned, stands before the pixels."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == _APP1:
            return True
        if marker == _SOS:
            return False
        position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return True  # not laid out as expected: Pillow looks
