"""Section data: pictures from disk to a model's pixels, 640 x 480 JPEG to 224 x 224, beside what a user would take.

"a worker's batches" is the work of one data worker on one core. "a loader's batches" is a loader with a worker for each
core, 16 at most, and the way to the device. The pictures are random, with the spectrum of photos, and about as large.

Sides: capkit (shards), and the same with `data.decode=scaled`, from a folder, and from a folder by Pillow as before; a
torch Dataset with Pillow and torchvision's transforms; webdataset with its decoder, where it is installed.
"""

import importlib.util
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

from benchmarks.speed.measure import Side, Work, in_turn
from capkit.data.dataset import CaptionDataset, Request
from capkit.data.jpeg import Decoder
from capkit.data.loader import CaptionLoader, InOrder
from capkit.data.shard_writer import write_shards
from capkit.data.skipped import SkipLog
from capkit.data.sources.base import DataSource
from capkit.data.sources.manifest import Manifest
from capkit.data.sources.shards import Shards
from capkit.data.transforms import ImageTransform

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Row:
    loader: bool
    images: int = 512
    batch: int = 64
    height: int = 480
    width: int = 640
    size: int = 224

    @property
    def name(self) -> str:
        whose = "a loader's" if self.loader else "a worker's"
        return f"{whose} batches, {self.images} pictures of {self.width} x {self.height}"


def picture(number: int, height: int, width: int) -> bytes:
    """A JPEG whose amplitudes fall with the frequency as those of photos do: 60 to 100 kB at 640 x 480."""
    random = np.random.default_rng(number)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1.0
    common, own = (random.standard_normal((channels, *frequency.shape, 2)) @ [1, 1j] for channels in (1, 3))
    field = np.fft.irfft2((common + 0.3 * own) / frequency**1.2, (height, width))
    pixels = 118 + 50 * (field - field.mean()) / field.std()
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0)).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def write_pictures(row: Row, folder: Path) -> Manifest:
    """A manifest of `images` files of 32 different pictures."""
    different = [picture(number, row.height, row.width) for number in range(min(32, row.images))]
    lines = []
    for number in range(row.images):
        (folder / f"{number}.jpg").write_bytes(different[number % len(different)])
        lines.append(json.dumps({"image": f"{number}.jpg", "captions": [f"picture {number}"]}))
    (folder / "all.jsonl").write_text("\n".join(lines))
    return Manifest(str(folder / "all.jsonl"))


class Pictures(Dataset[torch.Tensor]):
    """What a user writes."""

    def __init__(self, row: Row, folder: Path) -> None:
        self.row, self.folder, self.transform = row, folder, users_transform(row)

    def __len__(self) -> int:
        return self.row.images

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.folder / f"{index}.jpg").convert("RGB"))


def users_transform(row: Row) -> Callable[[Any], torch.Tensor]:
    size = (row.size, row.size)
    resize = T.Resize(size, T.InterpolationMode.BICUBIC)
    return T.Compose([resize, T.ToTensor(), T.Normalize(MEAN, STD)])


def capkit_side(row: Row, source: DataSource, decode: Decoder, device: str, workers: int) -> Work:
    transform = ImageTransform(row.size, MEAN, STD)
    # A worker hands over bytes; they are normalised where they arrive.
    data = CaptionDataset(source, "val", transform, None, None, 1, 0, False, decode=decode, is_raw=True)
    if not row.loader:
        requests = [Request(0, list(range(start, start + row.batch))) for start in range(0, row.images, row.batch)]
        return lambda: [data[request] for request in requests]
    loader = CaptionLoader(data, InOrder(row.images, row.batch, 0, 1), SkipLog(None), 0, workers)

    def work() -> None:
        for batch in loader:
            assert batch.pixels is not None and batch.pixels.device.type == device

    return work


def users_side(row: Row, dataset: Any, device: str, workers: int) -> Work:
    options: dict[str, Any] = {"batch_size": row.batch}
    if not isinstance(dataset, Pictures):
        options = {"batch_size": None}
    if not row.loader:
        loader = DataLoader(dataset, **options)
        return lambda: list(loader)
    loader = DataLoader(dataset, num_workers=workers, persistent_workers=True, pin_memory=device == "cuda", **options)

    def work() -> None:
        for batch in loader:
            pixels = batch if isinstance(batch, torch.Tensor) else batch[0]
            pixels.to(device, non_blocking=True)

    return work


def webdataset(row: Row, folder: Path) -> Any:
    import webdataset as wds

    tars = sorted(str(path) for path in folder.glob("val/*.tar"))
    data = wds.WebDataset(tars, shardshuffle=False).decode("pil").to_tuple("jpg", "json")
    return data.map_tuple(users_transform(row), lambda record: record["key"]).batched(row.batch)


def rows(tiny: bool) -> list[Row]:
    if tiny:
        return [Row(loader, 8, 4, 48, 64, 32) for loader in (False, True)]
    return [Row(loader=False), Row(loader=True, images=2048)]


def measure(row: Row, tiny: bool, device: str, rounds: int, with_static: bool) -> list[Side]:
    workers = min(16, len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as name, _one_thread():
        folder = Path(name)
        source = write_pictures(row, folder)
        # A tar for each worker at least: webdataset gives whole tars to workers.
        write_shards({"val": source}, folder / "shards", max(1, row.images // max(8, 2 * workers)), workers, 0)
        shards = Shards(str(folder / "shards"), "val")
        sides: dict[str, Work] = {
            "capkit": capkit_side(row, shards, "turbo", device, workers),
            "capkit, scaled": capkit_side(row, shards, "scaled", device, workers),
            "capkit, folder": capkit_side(row, source, "turbo", device, workers),
            "capkit, folder, Pillow": capkit_side(row, source, "pillow", device, workers),
            "Pillow and torchvision": users_side(row, Pictures(row, folder), device, workers),
        }
        if importlib.util.find_spec("webdataset"):
            sides["webdataset"] = users_side(row, webdataset(row, folder / "shards"), device, workers)
        return in_turn(sides, rounds, device, warm_up=1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """A data worker's setting."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
