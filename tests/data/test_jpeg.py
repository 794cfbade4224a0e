"""libjpeg-turbo against Pillow: equal pixels, equal refusals; and how far a reduced decoding is from the whole one."""

import functools
import io
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from capkit.config.arguments import parse
from capkit.config.check import compose_checked
from capkit.data import images
from capkit.data.datamodule import CaptionDataModule
from capkit.data.dataset import CaptionDataset, Request
from capkit.data.images import BadImage, load_rgb
from capkit.data.jpeg import read_picture
from capkit.data.loader import CaptionLoader, InOrder
from capkit.data.skipped import SkipLog
from capkit.data.sources.folder import Folder
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError

RANDOM = np.random.default_rng(0)


def photo(height: int = 53, width: int = 75, noise: float = 4) -> np.ndarray:
    """Smooth colours, an edge, and a camera's noise."""
    rows, columns = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(rows / 9 + phase) * np.cos(columns / 13 - phase) for phase in (0, 1, 2)]
    picture = np.stack(waves, -1) + np.where(columns > rows, 30, -30)[..., None]
    return (picture + np.random.default_rng(1).normal(0, noise, picture.shape)).clip(0, 255).astype(np.uint8)


def jpeg(picture: np.ndarray | Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(buffer, "JPEG", **({"quality": 90} | options))
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def other(kind: str, picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.fromarray(255 - picture)]
    Image.fromarray(picture).save(
        buffer, kind, **({"save_all": True, "append_images": frames} if kind == "GIF" else {})
    )
    return buffer.getvalue()


FILES = {
    "baseline": jpeg(photo()),
    "progressive": jpeg(photo(), progressive=True),
    "4:4:4": jpeg(photo(), subsampling=0),
    "4:2:2": jpeg(photo(), subsampling=1),
    "restart markers": jpeg(photo(), restart_marker_rows=1),
    "grey": jpeg(photo()[..., 0]),
    "CMYK": jpeg(Image.fromarray(photo()).convert("CMYK")),
    "one pixel": jpeg(photo()[:1, :1]),
    "one row": jpeg(photo()[:1]),
    "comment": jpeg(photo(), comment=b"no metadata"),
    **{f"turned {number}": jpeg(photo(), exif=turned(number)) for number in range(1, 9)},
    "turned by no known value": jpeg(photo(), exif=turned(9)),
    "png": other("PNG", photo()),
    "webp": other("WEBP", photo()),
    "16-bit png": other("PNG", (photo()[..., 0].astype(np.uint16) << 8)),
    "animated gif": other("GIF", photo()[..., 0]),
}


def outcome(read, data: bytes):
    try:
        return read(data)
    except BadImage as problem:
        return str(problem)


@pytest.mark.parametrize("name", FILES)
def test_pixels_equal_pillows(name):
    found = read_picture(FILES[name])
    np.testing.assert_array_equal(found.rgb, load_rgb(FILES[name]))
    assert found.full_size == found.rgb.shape[:2] and found.rgb.flags.c_contiguous


@pytest.mark.parametrize("kind", ["cut", "changed", "inserted"])
def test_a_damaged_file_is_read_or_refused_as_by_pillow(kind):
    """Catches a decoder that takes what Pillow refuses, e.g. `strict=False`: the rest of a cut file would be grey."""
    refused = 0
    for name in ("baseline", "progressive", "grey", "turned 6"):
        for _ in range(60):
            data = bytearray(FILES[name])
            place = int(RANDOM.integers(3, len(data)))
            if kind == "cut":
                data = data[:place]
            elif kind == "changed":
                data[place] = int(RANDOM.integers(256))
            else:
                data[place:place] = RANDOM.bytes(5)
            wanted = outcome(load_rgb, bytes(data))
            got = outcome(lambda content: read_picture(content).rgb, bytes(data))
            np.testing.assert_array_equal(got, wanted)
            refused += isinstance(wanted, str)
    assert refused > 10


@pytest.mark.parametrize("name", ["baseline", "turned 6", "turned 7", "grey"])
def test_a_large_jpeg_is_reduced_as_by_pillow(name, monkeypatch):
    monkeypatch.setattr(images, "LARGE_PIXELS", 1000)
    assert read_picture(FILES[name]).rgb.size < 3 * 53 * 75 / 2
    np.testing.assert_array_equal(read_picture(FILES[name]).rgb, load_rgb(FILES[name]))


def test_a_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    monkeypatch.setattr("capkit.data.jpeg.MAX_PIXELS", 1000)
    with pytest.raises(BadImage, match="more than"):
        read_picture(FILES["baseline"])


@pytest.mark.parametrize(
    ("fraction", "size"),
    [(0.01, (60, 80)), (0.126, (120, 160)), (0.5, (240, 320)), (0.51, (480, 640)), (3, (480, 640))],
)
def test_a_jpeg_is_decoded_at_the_smallest_size_that_suffices(fraction, size):
    found = read_picture(jpeg(photo(480, 640)), lambda height, width: fraction)
    assert found.rgb.shape == (*size, 3) and found.full_size == (480, 640)


def test_the_fraction_is_asked_of_the_upright_picture():
    asked = []
    found = read_picture(jpeg(photo(480, 640), exif=turned(6)), lambda *size: asked.append(size) or 0.25)
    assert asked == [(640, 480)] and found.rgb.shape == (160, 120, 3) and found.full_size == (640, 480)


KEYS = [None, (0, 0, 1), (0, 3, 2)]
TRANSFORMS = [
    {"resize": "squash"},
    {"resize": "crop"},
    {"resize": "pad"},
    {"resize": "crop", "crop_from": 72, "augment": ["crop", "flip"]},
    {"augment": ["crop", "flip"]},
]


@pytest.mark.parametrize("settings", TRANSFORMS, ids=str)
@pytest.mark.parametrize("size", [(480, 640), (333, 251), (70, 500)])
def test_a_reduced_picture_gives_the_same_view(settings, size):
    """On average within 1.5 levels of 255, 10 at most. Half a pixel of shift in the reduced picture, as by rounding the
    part to whole pixels, gives 2 to 7; a pixel of the view, the control here, 3 and more."""
    transform = ImageTransform(64, **settings)
    data = jpeg(photo(*size))
    for key in KEYS:
        small = read_picture(data, functools.partial(transform.fraction, random_key=key))
        seen, wanted = transform(small.rgb, key, small.full_size, small.scale), transform(load_rgb(data), key)
        difference = (seen.int() - wanted.int()).abs()
        assert difference.float().mean() < 1.5 and difference.max() <= 10
        assert (seen.roll(1, -1).int() - wanted.int()).abs().float().mean() > 3


@pytest.mark.parametrize("settings", [s for s in TRANSFORMS if "resize" not in s or s["resize"] != "pad"], ids=str)
def test_the_fraction_is_that_of_the_part_which_is_taken(settings):
    """What is taken is read from a picture whose colours are its rows and columns."""
    rows, columns = np.mgrid[:480, :640]
    places = np.stack([rows / 479, columns / 639, 0 * rows], -1)
    transform = ImageTransform(64, **settings)
    for key in KEYS:
        view = transform((255 * places).round().astype(np.uint8), key).float()
        spans = [(view[c].max() - view[c].min()).item() / 255 * 64 / 63 for c in (0, 1)]
        wanted = max(64 / (480 * spans[0]), 64 / (640 * spans[1]))
        assert transform.fraction(480, 640, key) == pytest.approx(wanted, rel=0.05)


def data(folder, **options) -> CaptionDataModule:
    source = Folder(str(folder))
    return CaptionDataModule(
        predict=source, transform=ImageTransform(64), eval_batch_size=4, max_skipped=1.0, **options
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(photo(480, 640)))
    (tmp_path / "b.jpg").write_bytes(jpeg(photo(480, 640))[:2000])
    (tmp_path / "c.png").write_bytes(other("PNG", photo(90, 60)))
    return tmp_path


def test_decode_chooses_the_reader_and_the_default_changes_no_pixel(folder):
    pixels = {}
    for decode in ("pillow", "turbo", "scaled"):
        (batch,) = data(folder, decode=decode).predict_dataloader()
        assert batch.keys == ["a.jpg", "c.png"]
        pixels[decode] = batch.pixels
    (batch,) = data(folder).predict_dataloader()
    assert torch.equal(pixels["pillow"], pixels["turbo"]) and torch.equal(batch.pixels, pixels["turbo"])
    differences = 127.5 * (pixels["scaled"] - pixels["pillow"]).abs()
    assert 0 < differences[0].mean() < 1.5 and differences[1].max() == 0


@pytest.mark.parametrize("decode", ["pillow", "turbo", "scaled"])
def test_what_cannot_be_read_is_listed_with_the_same_reason_by_every_reader(folder, tmp_path, decode):
    module = data(folder, decode=decode)
    dataset = CaptionDataset(
        module.source("predict"), "predict", module.transform, None, None, 1, 0, False, decode=module.decode
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (skipped,) = dataset[Request(0, [0, 1, 2])].skipped
    assert skipped.key == "b.jpg" and skipped.reason == outcome(load_rgb, (folder / "b.jpg").read_bytes())


def test_an_unknown_reader_is_named_before_anything_runs(folder):
    with pytest.raises(UsageError, match=r"data\.decode.*jpegturbo"):
        compose_checked(
            parse(["data=folder", f"data.train.images={folder}", "data.train.captions=x", "data.decode=jpegturbo"])
        )


def test_raw_pixels_are_normalised_by_the_loader_to_the_same_numbers(folder):
    """With a GPU pixels travel as bytes; here the loader does its part on the CPU."""
    (wanted,) = data(folder).predict_dataloader()
    module = data(folder)
    dataset = CaptionDataset(
        module.source("predict"), "predict", module.transform, None, None, 1, 0, False, is_raw=True
    )
    raw = dataset[Request(0, [0, 2])]
    assert raw.raw is not None and raw.raw.dtype == torch.uint8 and raw.batch is not None and raw.batch.pixels is None
    loader = CaptionLoader(dataset, InOrder(3, 4, 0, 1), SkipLog(None), 1.0, 0)
    (batch,) = loader
    assert torch.equal(batch.pixels.cpu(), wanted.pixels.cpu()) and batch.pixels.is_contiguous()


def test_only_training_on_a_gpu_gives_raw_pixels(folder):
    """Elsewhere a batch may meet a model that is not on the GPU, as in a dry run."""
    source = Folder(str(folder))
    module = CaptionDataModule(train=source, transform=ImageTransform(64), batch_size=2, max_skipped=1)
    for device, is_raw in ((None, False), ("cpu", False), ("cuda", True)):
        strategy = SimpleNamespace(root_device=torch.device(device or "cpu"))
        module.trainer = None if device is None else SimpleNamespace(strategy=strategy)
        trained, evaluated = module.train_dataloader().dataset, module.eval_dataloader("train").dataset
        trained.split = evaluated.split = "predict"  # these pictures have no captions
        assert (trained[Request(0, [0])].raw is not None) == is_raw
        assert evaluated[Request(0, [0])].raw is None
