"""DreamLIP's tables (Zheng et al. 2024, arXiv 2403.17007): one row a picture, a column for each kind of caption."""

import csv
import warnings
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from capkit.data.files import ImageFiles
from capkit.data.fingerprint import fingerprint_of
from capkit.data.records import Caption, Record
from capkit.data.sources.caption_files import CaptionRow
from capkit.data.sources.folder import existing_folder
from capkit.data.sources.listed import ListedPictures
from capkit.data.splits import check_shares, rows_of_split
from capkit.errors import UsageError
from capkit.utils.ranges import Probability, Seed, check_ranges
from capkit.utils.text_files import existing_file, file_name, shown

IMAGE = "image"
COLUMNS = ("raw", "shortIB", "longIB", "shortSV", "longSV", "shortLLA", "longLLA")
_SEPARATORS = {".csv": ",", ".tsv": "\t"}


class _Table(NamedTuple):
    """Where rows stand in a file: records without captions, and the place of each in bytes, by key."""

    rows: list[CaptionRow]
    places: dict[str, tuple[int, int]]
    names: list[str]


@check_ranges
class LongCaptions(ListedPictures):
    """Pictures with up to seven captions, whose sources are the columns' names: "raw", "shortIB", "longIB" and so on.

    `image` is a picture's file in the folder, and the record's key. Of the other columns those in `COLUMNS` are read,
    in the table's order; a row needs one that is not empty. Empty cells are left out, and a warning counts them. Rows
    are read when they are wanted: of a table of millions the file names alone are in memory.

    Args:
        images: Folder of the pictures.
        captions: A .csv or .tsv file with a header; cells with separators, quotes or line breaks are quoted.
        split: train, val or test.
        val, test: Shares of the pictures that are val and test, chosen by a hash of (seed, key).
        seed: Of that draw.
    """

    def __init__(
        self,
        images: str | None,
        captions: str | None,
        split: str = "train",
        val: Probability = 0.01,
        test: Probability = 0.01,
        seed: Seed = 0,
    ) -> None:
        root = existing_folder(images, "images").absolute()
        if captions is None:
            raise UsageError("captions: none given; add captions=FILE, a table of DreamLIP's")
        self._path = existing_file(captions, "captions").absolute()
        if self._path.suffix.lower() not in _SEPARATORS:
            raise UsageError(f"captions: expected a .csv or .tsv file, got {self._path.name!r}")
        if split not in ("train", "val", "test"):
            raise UsageError(f"split must be train, val or test; got {split!r}")
        check_shares(float(val), float(test))
        self._split, self._shares, self._seed = split, (float(val), float(test)), seed
        self.files = ImageFiles(root)

    def fingerprint(self) -> str:
        """Of the file's size and when it was changed: rows are not read."""
        stat = self._path.stat()
        return fingerprint_of(
            long_captions=[str(self._path), stat.st_size, stat.st_mtime_ns, self._split, *self._shares, self._seed]
        )

    @property
    def _table(self) -> _Table:
        return _read(self._path, self._path.stat().st_mtime_ns)

    @cached_property
    def _records(self) -> list[Record]:
        rows = rows_of_split(self._table.rows, self._split, *self._shares, self._seed, str(self._path))
        if not rows:
            raise UsageError(
                f"{self._path}: no pictures in split {self._split!r}; set {self._split}=0.01, its share of the pictures"
            )
        return [row.record for row in rows]

    def record(self, index: int) -> Record:
        key, (start, end) = self._records[index].key, self._table.places[self._records[index].key]
        with self._path.open("rb") as file:
            file.seek(start)
            cells = _cells(file.read(end - start), self._path, key)
        texts = dict(zip(self._table.names, cells, strict=True))
        captions = [Caption(texts[name], name) for name in self._table.names if name in COLUMNS and texts[name].strip()]
        return Record(key, key, captions)


@lru_cache(maxsize=2)
def _read(path: Path, modified_ns: int) -> _Table:
    """All rows without their texts. Cached, since the splits share a table."""
    table, empty = _Table([], {}, []), 0
    names: list[str] = []
    for number, start, content in _lines(path):
        where = f"{path} line {number}"
        cells = _cells(content, path, f"line {number}")
        if not names:
            names = [cell.strip() for cell in cells]
            _check_header(names, where)
            table.names.extend(names)
            continue
        if len(cells) != len(names):
            raise UsageError(
                f"{where}: {len(cells)} cells for {len(names)} columns; put cells with separators in quotes"
            )
        texts = dict(zip(names, cells, strict=True))
        key = file_name(texts[IMAGE], where, IMAGE)
        missing = [name for name in names if name in COLUMNS and not texts[name].strip()]
        if len(missing) == sum(name in COLUMNS for name in names):
            raise UsageError(f"{where}: no caption for {shown(key)}; take the row out")
        if key in table.places:
            raise UsageError(f"{where}: {shown(key)} stands in two rows; take one out")
        empty += len(missing)
        table.rows.append(CaptionRow(Record(key, key)))
        table.places[key] = (start, start + len(content))
    if not table.rows:
        raise UsageError(f"{path}: expected a header and rows of pictures; got none")
    if empty:
        warnings.warn(f"{path}: {empty} cells of captions are empty and left out", stacklevel=2)
    return table


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number and place of the first line of each row that is not empty, and its bytes: quoted cells may break lines."""
    with path.open("rb") as file:
        number, start, place, content = 1, 0, 0, b""
        for count, line in enumerate(file, 1):
            content += line
            place += len(line)
            if content.count(b'"') % 2 == 0:
                if content.strip():
                    yield number, start, content
                number, start, content = count + 1, place, b""
        if content:
            raise UsageError(
                f"{path} line {number}: a quote opens a cell that does not end; in quotes, write a quote twice"
            )


def _cells(content: bytes, path: Path, where: str) -> list[str]:
    try:
        text = content.decode("utf-8-sig").rstrip("\r\n")
        return next(csv.reader([text], delimiter=_SEPARATORS[path.suffix.lower()], strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} {where}: not UTF-8 text in quoted cells ({error}); write it so") from error


def _check_header(names: list[str], where: str) -> None:
    if IMAGE not in names or not set(names) & set(COLUMNS):
        raise UsageError(
            f"{where}: expected a header with {IMAGE} and some of {', '.join(COLUMNS)}; got {', '.join(names)[:200]}"
        )
    if len(set(names)) < len(names):
        raise UsageError(f"{where}: a column stands there twice; rename or remove one of {', '.join(names)}")
