import io
import os
import socket
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from capkit.data import images
from capkit.data.images import MAX_PIXELS, BadImage, image_size, load_rgb

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


def ramp(top: float, dtype: type) -> np.ndarray:
    """40 x 60 samples from 0 to `top`."""
    return np.linspace(0, top, 2400).reshape(40, 60).astype(dtype)


@pytest.mark.parametrize(
    ("top", "bits"), [(200, 8), (900, 10), (2399, 12), (4095, 12), (9000, 14), (20_000, 16), (65_535, 16)]
)
def test_few_bits_in_16_are_the_high_byte_of_a_sensors_depth(top, bits):
    samples = ramp(top, np.uint16)
    wanted = samples >> (bits - 8)
    np.testing.assert_array_equal(load_rgb(encoded(Image.fromarray(samples)))[..., 0], wanted)
    np.testing.assert_array_equal(load_rgb(encoded(Image.fromarray(samples), "TIFF"))[..., 0], wanted)
    np.testing.assert_array_equal(load_rgb(encoded(Image.fromarray(samples.astype(np.int32)), "TIFF"))[..., 0], wanted)


def test_hot_and_dead_pixels_do_not_decide_the_depth():
    samples = ramp(2399, np.uint16)
    samples[3, 4], samples[5, 6] = 65_535, 0
    grey = load_rgb(encoded(Image.fromarray(samples)))[..., 0]
    np.testing.assert_array_equal(grey, (samples >> 4).clip(0, 255))


@pytest.mark.parametrize("no_data", [np.inf, -np.inf, np.nan])
def test_samples_that_are_not_finite_are_black_and_leave_the_rest_as_it_is(no_data):
    samples = ramp(1, np.float32)
    plain = load_rgb(encoded(Image.fromarray(samples), "TIFF"))
    samples[:4, :7] = no_data
    image = load_rgb(encoded(Image.fromarray(samples), "TIFF"))
    assert not image[:4, :7].any()
    np.testing.assert_array_equal(image[4:], plain[4:])


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_the_value_that_a_tiff_declares_as_no_data_is_black(dtype):
    samples = ramp(200, dtype)
    samples[:4] = -9999
    image = load_rgb(encoded(Image.fromarray(samples), "TIFF", tiffinfo={42113: "-9999"}))[..., 0]
    assert not image[:4].any()
    np.testing.assert_array_equal(image[4:], np.rint(samples[4:]))


@pytest.mark.parametrize(
    "samples", [ramp(0.9, np.float32) * 3000 + 200, ramp(2, np.float32) - 1, ramp(0.01, np.float32)]
)
def test_floats_in_any_other_range_are_stretched_to_the_whole_of_it(samples):
    grey = load_rgb(encoded(Image.fromarray(samples), "TIFF"))[..., 0]
    unit = (samples - samples.min()) / (samples.max() - samples.min())
    assert np.abs(grey - unit * 255).max() <= 1.5  # the quantiles lie 2 samples inside


def test_a_resized_float_picture_may_overshoot_its_range():
    samples = ramp(1.06, np.float32) - 0.03
    grey = load_rgb(encoded(Image.fromarray(samples), "TIFF"))[..., 0]
    np.testing.assert_array_equal(grey, np.rint((samples * 255).clip(0, 255)))


def test_32_bit_integers_are_stretched():
    grey = load_rgb(encoded(Image.fromarray(ramp(2_000_000_000, np.int32)), "TIFF"))[..., 0]
    assert grey.min() == 0 and grey.max() == 255 and np.unique(grey).size == 256


def test_a_picture_without_any_finite_sample_says_so():
    data = encoded(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF")
    with pytest.raises(BadImage, match="no sample has a finite value"):
        load_rgb(data)


@pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_dark_colour_of_16_bits_of_which_pillow_reads_too_few_is_refused(color_type, channels):
    samples = np.full((8, 8, channels), 2399, ">u2")
    if channels in (2, 4):
        samples[..., -1] = 65_535
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    with pytest.raises(BadImage, match="uses 12 or fewer; save it with 8 bits a sample"):
        load_rgb(png(8, 8, 16, color_type, rows))


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
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F"):
        array = load_rgb(encoded(Image.new(mode, (5, 3)), "TIFF"))
        assert array.shape == (3, 5, 3) and array.dtype == np.uint8 and array.flags.writeable, mode


def jpeg() -> bytes:
    return encoded(Image.fromarray(photo(200, 300)), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"no image", "not an image of a format that is read"),
        (encoded(Image.new("RGB", (4, 4)), "EPS"), "not an image of a format that is read"),
        (encoded(Image.new("RGB", (4, 4)), "ICO"), "not an image of a format that is read"),
        (b"P3 3000 3000 255 " + b"1 " * 1000, "not an image of a format that is read"),  # 27 MB of text took 13 s
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
        "eps",
        "another format",
        "pixels as text",
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
    files += [encoded(Image.fromarray(photo()), kind) for kind in ("TIFF", "WEBP", "BMP", "JPEG2000", "AVIF")]
    files += [encoded(Image.fromarray(photo()[..., 0].astype(dtype)), "TIFF") for dtype in (np.int32, np.float32)]
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


def test_nothing_is_started_for_a_postscript_file_whatever_its_name(tmp_path, monkeypatch):
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}:{os.environ['PATH']}")
    (tmp_path / "a.jpg").write_bytes(encoded(Image.new("RGB", (4, 4)), "EPS"))
    with pytest.raises(BadImage, match="not an image"):
        load_rgb(tmp_path / "a.jpg")
    assert not (tmp_path / "started").exists()


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BadImage, match="a pipe or device, not a regular file"):
        load_rgb(tmp_path / "pipe.jpg")
    with pytest.raises(BadImage, match="a pipe or device"):
        load_rgb("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.jpg"))
        with pytest.raises(BadImage, match="No such device"):
            load_rgb(tmp_path / "socket.jpg")


@pytest.mark.parametrize("name", ["a\0b.jpg", "half \ud83d.jpg", "\udfff"])
def test_names_that_no_file_can_have_are_bad_images(name):
    with pytest.raises(BadImage, match="no file has such a name"):
        load_rgb(name)


def test_a_file_of_terabytes_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(BadImage, match="1,099,511,627,776 bytes: more than 1,073,741,824"):
        load_rgb(tmp_path / "a.png")


@pytest.fixture
def everything_is_large(monkeypatch):
    """1,000 pixels are a large image: 40 x 60 is reduced by 2, 80 x 60 by 4; strips are of 3 and 2 rows."""
    monkeypatch.setattr(images, "LARGE_PIXELS", 1000)
    monkeypatch.setattr(images, "_STRIP_PIXELS", 250)


@pytest.mark.parametrize(("height", "width", "factor"), [(20, 50, 1), (40, 60, 2), (41, 59, 2), (81, 62, 4)])
def test_a_large_image_is_the_mean_of_its_pixels(everything_is_large, height, width, factor):
    picture = photo(height, width)
    wanted = np.asarray(Image.fromarray(picture).reduce(factor))
    np.testing.assert_array_equal(load_rgb(encoded(Image.fromarray(picture))), wanted)


def test_a_large_jpeg_is_decoded_at_a_reduced_size(everything_is_large):
    image = Image.fromarray(photo(81, 62)).resize((62, 81)).convert("RGB")
    smooth = image.resize((6, 8)).resize((62, 81), Image.Resampling.BICUBIC)
    small = load_rgb(encoded(smooth, "JPEG", quality=95))
    assert small.shape == (21, 16, 3)
    assert np.abs(small.astype(int) - np.asarray(smooth.reduce(4)).astype(int)).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_the_upright_pictures_before_it_is_reduced(everything_is_large, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(photo(40, 60)), exif=exif)
    width, height = (40, 60) if orientation >= 5 else (60, 40)
    assert image_size(data) == (width, height)
    assert load_rgb(data).shape == (height // 2, width // 2, 3)


def test_the_size_needs_the_header_alone(tmp_path):
    data = encoded(Image.fromarray(photo(40, 60)), "JPEG")
    (tmp_path / "most.jpg").write_bytes(data[:-100])
    assert image_size(tmp_path / "most.jpg") == (60, 40)
    with pytest.raises(BadImage, match="truncated"):
        load_rgb(tmp_path / "most.jpg")
    with pytest.raises(BadImage, match="not an image of a format"):
        image_size(b"<html>")


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_large_image_is_turned_upright_after_it_was_reduced(everything_is_large, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    wanted = np.rot90(np.asarray(Image.fromarray(photo()).reduce(2)), {1: 0, 3: 2, 6: -1}[orientation])
    np.testing.assert_array_equal(load_rgb(encoded(Image.fromarray(photo()), exif=exif)), wanted)


def test_large_images_of_every_mode_are_reduced(everything_is_large):
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"):
        array = load_rgb(encoded(Image.new(mode, (60, 40)), "TIFF"))
        assert array.shape == (20, 30, 3), mode
    half = Image.new("RGBA", (60, 40), (255, 0, 0, 51))
    assert load_rgb(encoded(half))[3, 3].tolist() == [255, 204, 204]
    np.testing.assert_array_equal(
        load_rgb(encoded(Image.fromarray(ramp(2399, np.uint16))))[..., 0],
        np.asarray(Image.fromarray((ramp(2399, np.uint16) >> 4).astype(np.uint8)).reduce(2)),
    )
