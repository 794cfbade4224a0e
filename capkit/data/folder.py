"""A folder of images, alone or with one file of captions: what a user brings."""

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np

from capkit.data.caption_files import CaptionRow, read_captions
from capkit.data.files import ImageFiles
from capkit.data.images import EXTENSIONS
from capkit.data.manifest import Record, check_unique_keys
from capkit.errors import UsageError
from capkit.keyed import key_id, uniform
from capkit.ranges import Range, Seed, check_ranges
from capkit.text_files import existing_file


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts "img2" before "img10", letters without regard to case; equal names by their exact spelling."""
    pieces = re.split(r"(\d+)", name.lower())
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], name


def list_images(folder: str | Path) -> list[str]:
    """Image files below a folder, as paths relative to it with "/", in natural order; hidden names are passed over."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and path.suffix.lower() in EXTENSIONS and path.is_file():
                found.append(path.relative_to(folder).as_posix())
    return sorted(found, key=natural_key)


def existing_folder(path: str | None, what: str) -> Path:
    if path is None:
        raise UsageError(f"{what}: none given; add {what}=DIR, the folder that holds the images")
    if not Path(path).is_dir():
        raise UsageError(f"{what}: no folder {path!r}; give the path of an existing folder")
    return Path(path)


def printable(path: str) -> str:
    """A path as valid Unicode: bytes of a file name that are not UTF-8 are written as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@check_ranges
class Folder:
    """Images below a folder. With `captions`, the images that this file (CSV, TSV, JSON, JSONL) names; without, all.
    `images` may also be one image file.

    `split` takes a part of them. A `split` column in the captions file decides where there is one; else `val` and
    `test` are shares (rounded up) that are picked by a hash of (seed, file), the same on every machine.
    """

    def __init__(
        self,
        images: str | None,
        captions: str | None = None,
        split: str = "all",
        val: Annotated[float | int, Range(0, below=1)] = 0.05,
        test: Annotated[float | int, Range(0, below=1)] = 0.05,
        seed: Seed = 0,
    ) -> None:
        one_image = images is not None and captions is None and Path(images).is_file()
        self._root = Path(str(images)).absolute().parent if one_image else existing_folder(images, "images").absolute()
        self._only = Path(str(images)).name if one_image else None
        self._captions = existing_file(captions, "captions").absolute() if captions is not None else None
        if split not in ("all", "train", "val", "test"):
            raise UsageError(f"split must be all, train, val or test; got {split!r}")
        if val + test >= 1:
            raise UsageError(f"val and test are shares of the images, together below 1; got {val} and {test}")
        self._split, self._val, self._test, self._seed = split, val, test, seed
        self.files = ImageFiles(self._root)

    @cached_property
    def _records(self) -> list[Record]:
        rows = read_captions(self._captions) if self._captions else self._plain()
        if self._split != "all":
            rows = self._part(rows)
        if not rows:
            raise UsageError(
                f"no images for split={self._split} in {str(self._root)!r}; "
                "raise the share of this split, or name its images in the captions file's split column"
            )
        records = [row.record for row in rows]
        check_unique_keys(records, str(self._captions or self._root))
        return records

    def _plain(self) -> list[CaptionRow]:
        names = [self._only] if self._only else list_images(self._root)
        if not names:
            raise UsageError(f"no images in {str(self._root)!r}; wanted files that end in {', '.join(EXTENSIONS)}")
        return [CaptionRow(Record(printable(name), name)) for name in names]

    def _part(self, rows: list[CaptionRow]) -> list[CaptionRow]:
        if any(row.split is not None for row in rows):
            return [row for row in rows if row.split == self._split]
        ids = np.array([key_id(self._seed, "split", row.record.key) for row in rows])
        order = np.argsort(uniform(ids, 0), kind="stable")
        num_test, num_val = (int(np.ceil(share * len(rows))) for share in (self._test, self._val))
        parts = {"test": order[:num_test], "val": order[num_test:][:num_val], "train": order[num_test + num_val :]}
        return [rows[index] for index in sorted(parts[self._split])]

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> Record:
        return self._records[index]

    def image(self, index: int) -> np.ndarray:
        return self.files.load(self.record(index).image)
