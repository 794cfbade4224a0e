"""A user's folder of images, with or without captions."""

import glob
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np

from capkit.data.files import SHARD, ImageFiles
from capkit.data.images import EXTENSIONS
from capkit.data.records import Record, check_unique_keys
from capkit.data.sources.caption_files import CaptionRow, read_captions
from capkit.data.sources.caption_folders import metadata_tables, read_metadata, read_sidecars
from capkit.data.splits import check_shares, rows_of_split
from capkit.errors import UsageError
from capkit.utils.ranges import Range, Seed, check_ranges
from capkit.utils.text_files import existing_file


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key that puts "img2" before "img10", ignoring case; ties are broken by exact spelling."""
    pieces = re.split(r"(\d+)", name.lower())
    return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)], name


def list_images(folder: str | Path) -> list[str]:
    """Image files below a folder as relative paths with "/", in natural order, without hidden ones."""
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
    """A path as valid Unicode: bytes that are not UTF-8 are written as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def check_folder_prefix(root: Path, names: Sequence[str], where: str, num_looked_at: int = 20) -> None:
    """Raise UsageError if the images exist under other names: a leading folder more or less, another case, an ending.

    Files missing for other reasons are skipped when read, within the budget.
    """
    names = [name for name in names if SHARD not in name][:num_looked_at]
    if any((root / name).is_file() for name in names):
        return
    for name in names:
        parts = re.split(r"[/\\]", name)
        rests = ["/".join(parts[start:]) for start in range(len(parts))]
        rest = next((rest for rest in rests if (root / rest).is_file()), None)
        if rest is not None:
            prefix = name[: len(name) - len(rest)]
            fix = f"drop the prefix {prefix!r} from its file names" if prefix else "write / for \\ in its file names"
            above = f", or give images={str(root.parent)!r}" if (root.parent / name).is_file() else ""
            raise UsageError(f"{where}: names {name!r}, but {str(root)!r} holds {rest!r}; {fix}{above}")
        found = next((path.parent for path in sorted(root.glob(f"*/{glob.escape(name)}")) if path.is_file()), None)
        if found is not None:
            raise UsageError(f"{where}: names {name!r}, which lies in {str(found)!r}; give images={str(found)!r}")
    for name in names[:3]:  # each lists a folder, which may be large
        if (alike := _alike(root / name)) is not None:
            held = Path(name).with_name(alike).as_posix()
            raise UsageError(
                f"{where}: names {name!r}, but {str(root)!r} holds {held!r}; write its file names as the files have "
                "them, with case and ending"
            )


def _alike(path: Path) -> str | None:
    """An image beside where `path` would lie that is named like it but for case or ending; None without one."""
    if not path.parent.is_dir():
        return None
    names = sorted(file.name for file in path.parent.iterdir() if file.suffix.lower() in EXTENSIONS)
    whole = path.name.lower()
    stem = path.stem.lower() if path.suffix.lower() in EXTENSIONS else whole
    same = next((name for name in names if name.lower() == whole), None)
    return same or next((name for name in names if Path(name).stem.lower() == stem), None)


@check_ranges
class Folder:
    """Images below a folder, all of them or those with captions.

    Args:
        images: The folder, or one image file.
        captions: A file of captions (table, JSON, JSON lines), or a folder with a text file per image ("a.txt" for
            "a.jpg") or with metadata.jsonl or metadata.csv, also in each of its folders (Hugging Face's image folder);
            only images with captions are used. null: all images, without captions.
        split: "all", "train", "val" or "test", taken from the captions file's `split` column if there is one, or from
            the folders of an image folder (`train`, `validation`, `test`).
        val: Share of the images (rounded up), or of train if the column never names val, chosen by a hash of (seed,
            file) that is the same on every machine.
        test: Likewise for test.
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
        self._captions: Path | None = None
        if captions is not None:
            is_folder = Path(captions).is_dir()
            self._captions = (Path(captions) if is_folder else existing_file(captions, "captions")).absolute()
        if split not in ("all", "train", "val", "test"):
            raise UsageError(f"split must be all, train, val or test; got {split!r}")
        check_shares(val, test)
        self._split, self._val, self._test, self._seed = split, val, test, seed
        self.files = ImageFiles(self._root)

    @cached_property
    def _records(self) -> list[Record]:
        rows, where = self._rows(), str(self._captions or self._root)
        if self._split != "all":
            rows = rows_of_split(rows, self._split, self._val, self._test, self._seed, where)
        if not rows:
            raise UsageError(
                f"no images for split={self._split} in {str(self._root)!r}; "
                "raise the share of this split, or name its images in the captions file's split column"
            )
        records = [row.record for row in rows]
        check_unique_keys(records, where)
        return records

    def _rows(self) -> list[CaptionRow]:
        if self._captions is None:
            return [CaptionRow(Record(printable(name), name)) for name in self._names()]
        if self._captions.is_dir():
            tables = metadata_tables(self._captions)
            if not tables:
                return read_sidecars(self._captions, self._names())
            rows = read_metadata(self._captions, tables)
        else:
            rows = read_captions(self._captions)
        check_folder_prefix(self._root, [str(row.record.image) for row in rows], str(self._captions))
        return rows

    def _names(self) -> list[str]:
        names = [self._only] if self._only else list_images(self._root)
        if not names:
            raise UsageError(f"no images in {str(self._root)!r}; expected files that end in {', '.join(EXTENSIONS)}")
        return names

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> Record:
        return self._records[index]

    def image(self, index: int) -> np.ndarray:
        return self.files.load(self.record(index).image)
