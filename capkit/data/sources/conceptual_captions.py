"""Conceptual Captions: tables of captions and web addresses, with the pictures that were downloaded.

Sharma et al., "Conceptual Captions: A Cleaned, Hypernymed, Image Alt-text Dataset" (ACL 2018).
"""

import warnings
import zlib
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated

from capkit.data.files import ImageFiles
from capkit.data.records import Caption, Record
from capkit.data.sources.caption_files import CaptionRow
from capkit.data.sources.folder import existing_folder
from capkit.data.sources.listed import ListedPictures
from capkit.data.splits import check_shares, rows_of_split
from capkit.errors import UsageError
from capkit.text.caption_text import clean_text
from capkit.utils.ranges import Probability, Range, Seed, check_ranges
from capkit.utils.text_files import existing_file, read_text, shown


def picture_name(url: str) -> str:
    """The name under which the downloader stores the picture of an address: its CRC-32, in decimal."""
    return str(zlib.crc32(url.encode()))


@check_ranges
class ConceptualCaptions(ListedPictures):
    """Pictures of a released table (Train_GCC-training.tsv, Validation_GCC-1.1.0-Validation.tsv) that are on disk.

    Each line is a caption, a tab and an address; there is no header. Pictures are named as the usual downloader names
    them (igorbrigadir/DownloadConceptualCaptions): `picture_name` of the address, with or without an ending. Addresses
    die, so lines without a picture are left out. A name that two different addresses share is left out too: whose
    picture it is cannot be told. Lines of one address are captions of one picture. A record's key is the name.

    Pictures that img2dataset downloaded are read by data=folder (docs/data.md).

    Args:
        images: Folder of the pictures.
        captions: The table.
        split: "all", or "train", "val" or "test" of the table.
        val: Share of the pictures that is val, chosen by a hash of (seed, key).
        test: Likewise for test.
        max_missing: Share of the table's addresses, 0 to 1, that may be left out; above it reading is an error.
    """

    def __init__(
        self,
        images: str | None,
        captions: str | None,
        split: str = "all",
        val: Annotated[float | int, Range(0, below=1)] = 0.0,
        test: Annotated[float | int, Range(0, below=1)] = 0.0,
        seed: Seed = 0,
        max_missing: Probability = 0.5,
    ) -> None:
        self._root = existing_folder(images, "images").absolute()
        if captions is None:
            raise UsageError("captions: none given; add captions=FILE, a table such as Train_GCC-training.tsv")
        self._path = existing_file(captions, "captions").absolute()
        if split not in ("all", "train", "val", "test"):
            raise UsageError(f"split must be all, train, val or test; got {split!r}")
        check_shares(val, test)
        self._split, self._val, self._test, self._seed = split, val, test, seed
        self._max_missing = max_missing
        self.files = ImageFiles(self._root)

    @cached_property
    def _records(self) -> list[Record]:
        rows = _read(self._path, self._root, self._path.stat().st_mtime_ns, self._max_missing)
        if self._split != "all":
            rows = rows_of_split(rows, self._split, self._val, self._test, self._seed, str(self._path))
        if not rows:
            raise UsageError(
                f"{self._path}: no pictures in split {self._split!r}; set {self._split}=0.01, its share of the pictures"
            )
        return [row.record for row in rows]


@lru_cache(maxsize=2)
def _read(path: Path, root: Path, modified_ns: int, max_missing: float) -> list[CaptionRow]:
    """Rows of the pictures on disk, in the table's order. Cached, since train and val share a table."""
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(read_text(path, "captions").split("\n"), 1):
        if line.strip():
            caption, url = _cells(line, f"{path} line {number}")
            captions.setdefault(url, []).append(caption)
    if not captions:
        raise UsageError(f"{path}: expected lines of a caption, a tab and an address; got an empty file")
    return rows_on_disk(captions, path, root, max_missing)


def rows_on_disk(
    captions: dict[str, list[str]], path: Path, root: Path, max_missing: float, source: str = "human"
) -> list[CaptionRow]:
    """Rows of the pictures in `root` that the captions' addresses have there, by `picture_name`, in their order.

    Says how many addresses of the file `path` are left out. Raises UsageError if that is more than a share of
    `max_missing`, or all.
    """
    urls: dict[str, list[str]] = {}
    for url in captions:
        urls.setdefault(picture_name(url), []).append(url)
    files = {Path(file.name).stem: file.name for file in root.iterdir()}
    rows = [
        CaptionRow(
            Record(name, files[name], [Caption(text, source) for text in captions[same[0]]], metadata={"url": same[0]})
        )
        for name, same in urls.items()
        if len(same) == 1 and name in files
    ]
    if not rows:
        raise UsageError(
            f"{path}: expected pictures named like {next(iter(urls))!r}, the CRC-32 of the address, in {str(root)!r}; "
            f"got none of {len(urls)}; give images=DIR, the folder that the downloader wrote"
        )
    _check_missing(path, root, len(captions), len(captions) - len(rows), _num_colliding(urls.values()), max_missing)
    return rows


def _num_colliding(names: Iterable[list[str]]) -> int:
    return sum(len(same) for same in names if len(same) > 1)


def _check_missing(path: Path, root: Path, total: int, left_out: int, colliding: int, max_missing: float) -> None:
    """Says how many addresses are left out, and raises UsageError if they are too many."""
    if not left_out:
        return
    found = (
        f"{path}: {left_out} of {total} addresses are left out: {left_out - colliding} have no picture in "
        f"{str(root)!r}, {colliding} share a CRC-32 with another address"
    )
    if left_out > max_missing * total:
        raise UsageError(
            f"{found}; expected a share of at most {max_missing:g}; let the downloader finish, or raise max_missing"
        )
    warnings.warn(found, stacklevel=2)


def _cells(line: str, where: str) -> tuple[str, str]:
    cells = line.split("\t")
    if len(cells) != 2 or "://" not in cells[1] or not clean_text(cells[0]):
        raise UsageError(
            f"{where}: expected a caption, a tab and an address, as Google released them; got {shown(line)}"
        )
    return cells[0], cells[1].strip()
