"""Captions and references in tables (CSV), as the programs of DNLI and OpenCHAIR read them."""

import csv
import io
from pathlib import Path

from capkit.data.sources.caption_tables import FILE_COLUMNS, caption_columns, column_names
from capkit.errors import UsageError
from capkit.utils.text_files import Located, read_text

_OWN_IMAGES = ("image", "image_id", "image_name", "image_path", "key")
_IMAGES = (*_OWN_IMAGES, *(name for name in FILE_COLUMNS if name not in _OWN_IMAGES))
_GENERATED = ("generated_caption", "generated_description")
_TEXTS = {
    "predictions": (*_GENERATED, "caption"),
    "references": ("original_description", "text", "references", "caption"),
}


def is_training_table(path: str | Path, what: str) -> bool:
    """Whether a file is a table that training reads (docs/data.md) and `table_rows` does not: of tabs, of other
    separators, without a header, or with a column of files and no other captions for `what` than those that training
    reads.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".csv", ".tsv", ".txt", ".token") or not Path(path).is_file():
        return False
    start = read_text(path, what).lstrip()
    if suffix != ".csv":
        return start[:1] not in "{["  # JSON under another name
    names = column_names(start.split("\n", 1)[0], ",")
    text = next((name for name in _TEXTS[what] if name in names), None)
    if text is None:
        return True
    has_files = any(name in names for name in FILE_COLUMNS if name not in _OWN_IMAGES)
    return has_files and names.index(text) in caption_columns(names)


def is_table(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ".csv"


def table_rows(path: str | Path, what: str) -> list[Located]:
    """{"image_id": .., "caption": ..} of each row; `what` is predictions or references, which one table may both have.

    A table without a column of images numbers its rows, from 0. Raises UsageError for a table without its column of
    texts, a row of another length, or what is no CSV.
    """
    rows = csv.reader(io.StringIO(read_text(path, what), newline=""))
    found: list[Located] = []
    try:
        header = [name.strip() for name in next(rows, [])]
        text = next((name for name in _TEXTS[what] if name in header), None)
        if text is None:
            raise UsageError(
                f"{path}: expected a table with one of the columns {', '.join(_TEXTS[what])} for {what}, got the "
                f"columns {', '.join(header[:8]) or '(none)'}"
            )
        image = next((name for name in _IMAGES if name in header), None)
        for row in rows:
            where = f"{path} line {rows.line_num}"
            if len(row) != len(header):
                raise UsageError(f"{where}: expected {len(header)} cells, as the header has, got {len(row)}")
            cells = dict(zip(header, row, strict=True))
            name = str(len(found)) if image is None else cells[image]
            found.append(Located(where, {"image_id": name, "caption": cells[text]}))
    except csv.Error as error:
        raise UsageError(f"{path} line {rows.line_num}: {error}; give a table with commas, as CSV") from error
    return found
