"""Read tables of captions with or without a header, separated by commas, tabs, semicolons or bars."""

import csv
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from capkit.data.images import EXTENSIONS
from capkit.errors import UsageError
from capkit.text.caption_text import caption_texts
from capkit.utils.text_files import file_name, shown, split_name

FILE_COLUMNS = (
    *("file", "image", "file_name", "filename", "path"),
    *("filepath", "file_path", "image_name", "image_path", "image_file", "img"),
)
CAPTION_COLUMNS = ("caption", "text", "comment", "title", "description", "sentence", "raw")

# With the first two separators quotes group a cell; with the others they are plain characters.
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_QUOTING = ",;"
_CAPTION_COLUMN = re.compile(rf"({'|'.join(CAPTION_COLUMNS)})s?[ _-]?\d*")
_IMAGE = rf"(?:{'|'.join(map(re.escape, EXTENSIONS))})(?:\.\d+)?"
# In the token files of Flickr8k and Flickr30k "a.jpg#2" is the third caption of a.jpg.
_NUMBERED_FILE = re.compile(rf"(.+{_IMAGE})#\d+", re.IGNORECASE)
_ROW = re.compile(rf'\s*(?P<file>"?[^\t]+?{_IMAGE}"?(?:#\d+)?)\s*(?P<separator>[,;\t|:])(?P<rest>.*)', re.IGNORECASE)
_ROW_IN_CELL = re.compile(rf'\n"?[^\n,;"]+{_IMAGE}"?\s*[,;]', re.IGNORECASE)


class TableRow(NamedTuple):
    """The relevant cells of a row, and its location. `language` is None where the table has no such column."""

    where: str
    file: str
    captions: list[str]
    split: str | None
    language: str | None = None


def read_table(text: str, path: Path) -> list[TableRow]:
    """Read the rows of a table in order. Raises UsageError with file and line for unreadable content.

    The separator is the one that splits the first line into a header with a file column and a caption column. Without
    such a header, each row is a file name, a separator and the rest of the line.
    """
    lines = text.split("\n")
    first = next((place for place, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise UsageError(f"{path} line 1: no column named {' or '.join(FILE_COLUMNS)}: the file is empty")
    separators: Sequence[str] = list(_SEPARATORS)
    if declared := re.fullmatch("sep=(.)", lines[first]):  # Excel's own line
        separators, first = [declared[1]], first + 1
    header = lines[first] if first < len(lines) else ""
    for separator in separators:
        names = column_names(header, separator)
        if file_column(names) is not None and caption_columns(names):
            return list(_with_header(lines, first, separator, names, path))
    if _ROW.fullmatch(header):
        return list(_without_header(lines, first, path))
    raise _no_header(header, separators, f"{path} line {first + 1}")


def column_names(header: str, separator: str) -> list[str]:
    return [name.strip().strip('"').lower() for name in header.split(separator)]


def file_column(names: Sequence[str]) -> int | None:
    """Index of the column that names the image."""
    return next((list(names).index(wanted) for wanted in FILE_COLUMNS if wanted in names), None)


def caption_columns(names: Sequence[str]) -> list[int]:
    """Indices of the caption columns: several if a name is numbered (caption_0, caption_1) or repeated.

    Among different names only the first in CAPTION_COLUMNS counts: a title next to captions is not a caption.
    """
    bases = [found[1] if (found := _CAPTION_COLUMN.fullmatch(name)) else None for name in names]
    base = next((wanted for wanted in CAPTION_COLUMNS if wanted in bases), None)
    return [place for place, other in enumerate(bases) if other is not None and other == base]


def _with_header(lines: list[str], first: int, separator: str, names: list[str], path: Path) -> Iterator[TableRow]:
    file_at, captions_at = file_column(names), caption_columns(names)
    assert file_at is not None
    split_at, language_at = (names.index(name) if name in names else None for name in ("split", "language"))
    _warn_of_unread(names, captions_at, path)
    rows = _quoted_rows if separator in _QUOTING else _plain_rows
    for number, cells in rows(lines, first + 1, separator, path):
        where = f"{path} line {number}"
        if len(cells) != len(names):
            kind = _SEPARATORS.get(separator, repr(separator))
            quotes, bare = (
                f"put captions with {kind} in quotes",
                f"they are parted by {kind}, got {shown(lines[number - 1])}",
            )
            fix = quotes if separator in _QUOTING else bare
            raise UsageError(f"{where}: {len(cells)} cells for {len(names)} columns; {fix}")
        texts = [text for place in captions_at for text in caption_texts(cells[place], where)]
        if len(captions_at) > 1:  # the table is as wide as the most captions of an image
            texts = [text for text in texts if text.strip()]
        split = cells[split_at].strip() if split_at is not None else ""
        language = cells[language_at].strip() if language_at is not None else None
        yield TableRow(
            where, _file(cells[file_at], where), texts, split_name(split, where) if split else None, language or None
        )


def _warn_of_unread(names: list[str], captions_at: list[int], path: Path) -> None:
    others = [name for place, name in enumerate(names) if _CAPTION_COLUMN.fullmatch(name) and place not in captions_at]
    if others:
        read = ", ".join(names[place] for place in captions_at)
        warnings.warn(
            f"{path}: captions are read from {read} and not from {', '.join(others)}; name columns of captions alike "
            "(caption_0, caption_1) to have them all read",
            stacklevel=2,
        )


def _plain_rows(lines: list[str], first: int, separator: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row after the first `first` lines."""
    for number, line in enumerate(lines[first:], first + 1):
        if line.strip():
            yield number, line.split(separator)


def _quoted_rows(lines: list[str], first: int, separator: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Like `_plain_rows`, but quoted cells may contain separators and line breaks."""
    csv.field_size_limit(1 << 24)
    table = csv.reader(io.StringIO("\n".join(lines[first:]), newline=""), delimiter=separator, strict=True)
    while True:
        number = first + table.line_num + 1
        try:
            cells = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            raise UsageError(f"{path} line {number}: not CSV ({error}); in quotes, write a quote twice") from error
        if any(_ROW_IN_CELL.search(cell) for cell in cells):
            raise UsageError(
                f"{path} line {number}: a quote opens a cell that takes in further rows; in quotes, write a quote twice"
            )
        if cells:
            yield number, cells


def _without_header(lines: list[str], first: int, path: Path) -> Iterator[TableRow]:
    matches = [
        (number, _ROW.fullmatch(line)) for number, line in enumerate(lines, 1) if number > first and line.strip()
    ]
    rows = [(number, match) for number, match in matches if match is not None]
    separator = rows[0][1]["separator"]
    for number, match in matches:
        if match is None or match["separator"] != separator:
            kind = _SEPARATORS.get(separator, "colons")
            raise UsageError(
                f"{path} line {number}: expected a file name and a caption parted by {kind}, as in line {first + 1}, "
                f"got {shown(lines[number - 1])}"
            )
    number_cell = re.compile(rf"\s*\d+\s*{re.escape(separator)}")
    are_numbered = all(number_cell.match(match["rest"]) for _, match in rows)
    for number, match in rows:
        where = f"{path} line {number}"
        rest = number_cell.sub("", match["rest"], count=1) if are_numbered else match["rest"]
        text = _last_cell(rest.strip(), separator, where)
        yield TableRow(where, _file(match["file"].strip('"'), where), caption_texts(text, where), None)


def _last_cell(rest: str, separator: str, where: str) -> str:
    """The caption of a row without a header; unquoted, it may contain commas, semicolons and colons."""
    cells = [rest]
    if separator in _QUOTING and rest.startswith('"'):
        try:
            cells = next(csv.reader([rest], delimiter=separator, strict=True))
        except csv.Error as error:
            raise UsageError(f"{where}: not CSV ({error}); in quotes, write a quote twice") from error
    elif separator in "\t|":
        cells = rest.split(separator)
    if len(cells) != 1:
        raise UsageError(
            f"{where}: {len(cells) + 1} cells, and no header that names them; write one, such as "
            f"{separator.join(['file', 'caption', 'split'])!r}"
        )
    return cells[0]


def _file(cell: str, where: str) -> str:
    name = file_name(cell.strip(), where)
    numbered = _NUMBERED_FILE.fullmatch(name)
    return numbered[1] if numbered else name


def _no_header(header: str, separators: Sequence[str], where: str) -> UsageError:
    for names in (column_names(header, separator) for separator in separators):
        has_file, has_captions = file_column(names) is not None, bool(caption_columns(names))
        if has_file or has_captions:
            wanted = CAPTION_COLUMNS if has_file else FILE_COLUMNS
            return UsageError(f"{where}: no column named {' or '.join(wanted)}; the columns are {', '.join(names)}")
    hint = "; download pictures that are named by web addresses" if "://" in header else ""
    return UsageError(
        f"{where}: expected a header that names a column of files ({', '.join(FILE_COLUMNS[:3])} ...) and one of "
        f"captions ({', '.join(CAPTION_COLUMNS[:3])} ...), or rows of a file name and a caption, parted by commas, "
        f"semicolons, tabs, bars or colons; got {shown(header)}{hint}"
    )
