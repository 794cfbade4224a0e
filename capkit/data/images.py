"""Any image file to one uint8 RGB array. What happens to each odd kind of image is a table in docs/data.md."""

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif")
MAX_PIXELS = 89_478_485  # Pillow's own limit for a likely decompression bomb: 256 MiB of RGB


class BadImage(Exception):
    """An image that cannot be used; the message is the reason that skipped.jsonl gives."""


def load_rgb(source: str | Path | bytes) -> UInt8[np.ndarray, "H W 3"]:
    """Reads an image file (or its bytes) as 8-bit RGB, upright by its EXIF tag, transparency laid on white.

    Of an animation the first frame is taken; of 16-bit samples the high byte. Raises BadImage with the reason.
    """
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise BadImage(error.strerror or type(error).__name__) from error
    if not data:
        raise BadImage("empty file (0 bytes)")
    try:
        return _decode(data)
    except BadImage:
        raise
    except Image.UnidentifiedImageError as error:
        raise BadImage("not an image that Pillow can read") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadImage(f"more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # decoders of hostile files raise nearly everything: OSError, SyntaxError, struct.error
        raise BadImage(f"cannot be decoded: {str(error) or type(error).__name__}") from error


def _decode(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(f"{image.width} x {image.height}: more than {MAX_PIXELS:,} pixels")
            image.load()
            return np.array(_to_rgb(ImageOps.exif_transpose(image)), dtype=np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_eight_bits(np.asarray(image))).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_eight_bits(samples: np.ndarray) -> np.ndarray:
    """16-bit and 32-bit integers to their high byte of 16; floats from [0, 1], or from [0, 255] where any exceeds 1.

    Pillow's own conversion clips them at 255 instead, which leaves a white picture.
    """
    if np.issubdtype(samples.dtype, np.integer):
        return (np.clip(samples, 0, 0xFFFF).astype(np.uint16) >> 8).astype(np.uint8)
    samples = np.nan_to_num(samples)
    return np.clip(samples * (255 if samples.max() <= 1 else 1), 0, 255).round().astype(np.uint8)
