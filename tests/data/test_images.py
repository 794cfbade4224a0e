import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from capkit.data.images import MAX_PIXELS, BadImage, load_rgb

RED = (255, 0, 0)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, color_type: int, rows: bytes) -> bytes:
    """A PNG made by hand: Pillow does not write 16-bit RGB."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def photo(height: int = 40, width: int = 60) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 4 % 256, columns * 4 % 256, (rows + columns) % 256], -1).astype(np.uint8)


def test_plain_png_is_read_exactly(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(photo())))
    np.testing.assert_array_equal(load_rgb(tmp_path / "a.png"), photo())
    np.testing.assert_array_equal(load_rgb(str(tmp_path / "a.png")), photo())


def test_grey_becomes_three_equal_channels():
    grey = photo()[..., 0]
    np.testing.assert_array_equal(load_rgb(encoded(Image.fromarray(grey))), np.stack([grey] * 3, -1))


def test_one_bit_becomes_black_and_white():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(load_rgb(encoded(image)), [[[0, 0, 0], [255, 255, 255]]])


def test_16_bit_grey_keeps_its_high_byte():
    samples = np.array([[0x0000, 0x00FF, 0x1234, 0xFFFF]], np.uint16)
    data = png(4, 1, 16, 0, b"\0" + samples.astype(">u2").tobytes())
    np.testing.assert_array_equal(load_rgb(data)[..., 0], [[0x00, 0x00, 0x12, 0xFF]])
    tiff = encoded(Image.fromarray(samples), "TIFF")
    np.testing.assert_array_equal(load_rgb(tiff), load_rgb(data))


def test_16_bit_rgb_keeps_its_high_byte():
    samples = np.array([0x1234, 0xABCD, 0xFFFF], ">u2")
    np.testing.assert_array_equal(load_rgb(png(1, 1, 16, 2, b"\0" + samples.tobytes())), [[[0x12, 0xAB, 0xFF]]])


def test_float_tiff_in_0_1_is_scaled_and_in_0_255_is_not():
    unit = Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))
    wide = Image.fromarray(np.array([[0.0, 128.0, 300.0]], np.float32))
    np.testing.assert_array_equal(load_rgb(encoded(unit, "TIFF"))[0, :, 0], [0, 128, 255])
    np.testing.assert_array_equal(load_rgb(encoded(wide, "TIFF"))[0, :, 0], [0, 128, 255])


def test_cmyk_jpeg_becomes_rgb():
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    pixel = load_rgb(encoded(cyan, "JPEG", quality=100))[4, 4].astype(int)
    assert np.abs(pixel - [0, 255, 255]).max() <= 3


def test_palette_becomes_its_colours():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(load_rgb(encoded(image)), [[[10, 20, 30], [200, 100, 50]]])


def test_palette_transparency_becomes_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(load_rgb(encoded(image, transparency=0)), [[[255, 255, 255], [200, 100, 50]]])


def test_rgb_with_a_transparent_colour_becomes_white_there():
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), (0, 0, 9))
    np.testing.assert_array_equal(load_rgb(encoded(image, transparency=(0, 0, 9))), [[RED, (255, 255, 255)]])


def test_alpha_is_laid_on_white():
    image = Image.new("RGBA", (3, 1), (*RED, 255))
    image.putpixel((1, 0), (*RED, 0))
    image.putpixel((2, 0), (*RED, 51))  # 0.2: green = 0.8 x 255 = 204
    np.testing.assert_array_equal(load_rgb(encoded(image)), [[RED, (255, 255, 255), (255, 204, 204)]])


def test_grey_with_alpha_is_laid_on_white():
    image = Image.new("LA", (2, 1), (0, 255))
    image.putpixel((1, 0), (0, 0))
    np.testing.assert_array_equal(load_rgb(encoded(image)), [[[0, 0, 0], [255, 255, 255]]])


def test_one_pixel_is_one_pixel():
    assert load_rgb(encoded(Image.new("RGB", (1, 1), RED))).tolist() == [[[255, 0, 0]]]


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, (0, 255, 0), (0, 0, 255))]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(
            frames[0], kind, save_all=True, append_images=frames[1:], **({} if kind == "GIF" else {"lossless": True})
        )
        assert load_rgb(data)[0, 0].tolist() == [255, 0, 0], kind


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation):
    upright = photo()
    stored = {  # what a camera stores so that the tag brings it upright
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(load_rgb(data), upright)


def test_result_can_be_written_to_and_is_8_bit_rgb():
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"):
        array = load_rgb(encoded(Image.new(mode, (5, 3)), "TIFF"))
        assert array.shape == (3, 5, 3) and array.dtype == np.uint8 and array.flags.writeable, mode


def jpeg() -> bytes:
    return encoded(Image.fromarray(photo(200, 300)), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"no image", "not an image"),
        (jpeg()[:600], "(?i)truncated"),
        (jpeg()[: len(jpeg()) // 2], "(?i)truncated"),
        (encoded(Image.fromarray(photo()))[:90], "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "cannot be decoded|not an image"),
        (png(60_000, 60_000, 8, 2, b""), "pixels"),
        (png(MAX_PIXELS // 1000 + 1, 1000, 8, 0, b""), "pixels"),
    ],
    ids=[
        "empty",
        "text",
        "truncated header",
        "truncated jpeg",
        "truncated png",
        "png without header",
        "bomb",
        "just too large",
    ],
)
def test_unusable_image_says_why(data, reason):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no warning reaches the user's screen either
        with pytest.raises(BadImage, match=reason):
            load_rgb(data)


def test_bytes_changed_at_random_never_raise_anything_else():
    random = np.random.default_rng(0)
    files = [jpeg(), encoded(Image.fromarray(photo())), encoded(Image.fromarray(photo()), "GIF")]
    files += [encoded(Image.fromarray(photo()), kind) for kind in ("TIFF", "WEBP", "BMP")]
    outcomes = set()
    for attempt in range(300):
        data = np.frombuffer(files[attempt % len(files)], np.uint8).copy()
        data[random.integers(len(data), size=8)] = random.integers(256, size=8)
        try:
            outcomes.add(load_rgb(data.tobytes()).ndim)
        except BadImage:
            outcomes.add("bad")
    assert outcomes == {3, "bad"}


def test_missing_file_and_folder_are_bad_images(tmp_path):
    with pytest.raises(BadImage, match="No such file"):
        load_rgb(tmp_path / "none.png")
    with pytest.raises(BadImage, match="directory"):
        load_rgb(tmp_path)
