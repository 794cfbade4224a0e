"""Caption files of the shapes that people have: CSV and TSV, JSON (three shapes), JSONL. docs/data.md shows each."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capkit.data.manifest import Caption, Record, record_from_row
from capkit.errors import UsageError

FILE_COLUMNS = ("file", "image", "file_name", "filename", "path")
CAPTION_COLUMNS = ("caption", "text", "captions")
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}


@dataclass
class CaptionRow:
    """A record, and the split that the file puts it in, if it says."""

    record: Record
    split: str | None = None


def read_captions(path: Path) -> list[CaptionRow]:
    """One row per image in the file's order; several rows of one image join their captions.

    Raises UsageError with file and line for anything that is not one of the documented shapes.
    """
    readers = {
        ".csv": _read_table,
        ".tsv": _read_table,
        ".txt": _read_table,
        ".json": _read_json,
        ".jsonl": _read_jsonl,
    }
    if path.suffix.lower() not in readers:
        raise UsageError(f"captions: {path.name!r} should end in {', '.join(readers)}; docs/data.md shows each shape")
    try:
        rows = readers[path.suffix.lower()](path, path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    if not rows:
        raise UsageError(f"{path}: no captions in it; docs/data.md shows the shapes that are read")
    return rows


class _Joined:
    """Rows by image, in order of first appearance."""

    def __init__(self) -> None:
        self.rows: dict[str, CaptionRow] = {}

    def add(self, file: str, captions: list[str], split: str | None, where: str) -> None:
        if not file:
            raise UsageError(f"{where}: no file name; give the image's path relative to the images folder")
        if split and split not in _SPLITS:
            raise UsageError(f"{where}: split {split!r} is unknown; use train, val or test")
        row = self.rows.setdefault(file, CaptionRow(Record(file, file), _SPLITS[split] if split else None))
        if split and row.split != _SPLITS[split]:
            raise UsageError(f"{where}: {file!r} is in split {split!r} and in {row.split!r}; give an image one split")
        row.record.captions += [Caption(text) for text in captions]


def _column(names: list[str], wanted: tuple[str, ...], where: str) -> str:
    for name in wanted:
        if name in names:
            return name
    raise UsageError(f"{where}: no column named {' or '.join(wanted)}; the columns are {', '.join(names) or 'none'}")


def _read_table(path: Path, text: str) -> list[CaptionRow]:
    header = text.partition("\n")[0]
    # Excel writes ";" where "," is the decimal sign.
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in header and "," not in header else ","
    csv.field_size_limit(1 << 24)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names = [name.strip().lower() for name in next(table, [])]
    file_at, caption_at = (names.index(_column(names, w, f"{path} line 1")) for w in (FILE_COLUMNS, CAPTION_COLUMNS))
    split_at = names.index("split") if "split" in names else None
    joined = _Joined()
    for cells in _rows(table, path):
        where = f"{path} line {table.line_num}"
        if not cells:
            continue
        if len(cells) != len(names):
            raise UsageError(
                f"{where}: {len(cells)} cells for {len(names)} columns; put captions with commas in quotes"
            )
        split = None if split_at is None else cells[split_at].strip().lower()
        joined.add(cells[file_at].strip(), [cells[caption_at]], split, where)
    return list(joined.rows.values())


def _rows(table: Any, path: Path) -> Iterator[list[str]]:
    try:
        yield from table
    except csv.Error as error:
        raise UsageError(f"{path} line {table.line_num}: not CSV ({error})") from error


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"{where}: not JSON ({error})") from error


def _read_jsonl(path: Path, text: str) -> list[CaptionRow]:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    return _from_objects([(f"{path} line {number}", _parse(line, f"{path} line {number}")) for number, line in lines])


def _read_json(path: Path, text: str) -> list[CaptionRow]:
    content = _parse(text, str(path))
    if isinstance(content, list):
        return _from_objects([(f"{path} item {number}", row) for number, row in enumerate(content)])
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        return _from_coco(content, path)
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        raise UsageError(f"{path}: looks like a Karpathy split file; read it with data=karpathy")
    if isinstance(content, dict):
        joined = _Joined()
        for file, value in content.items():
            joined.add(file, _texts(value, f"{path}, image {file!r}"), None, f"{path}, image {file!r}")
        return list(joined.rows.values())
    raise UsageError(f"{path}: wanted an object or a list, got {type(content).__name__}; docs/data.md shows the shapes")


def _texts(value: Any, where: str) -> list[str]:
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{where}: wanted a caption or a list of captions, got {json.dumps(value)[:80]}")
    return texts


def _from_objects(objects: list[tuple[str, Any]]) -> list[CaptionRow]:
    """Objects with a file and a caption each; or manifest records, which are known by their 'key'."""
    joined = _Joined()
    for where, row in objects:
        if not isinstance(row, dict):
            raise UsageError(f"{where}: wanted an object, got {json.dumps(row)[:80]}")
        if "key" in row:
            record = record_from_row(row, where)
            if record.key in joined.rows:
                raise UsageError(f"{where}: two records have the key {record.key!r}; give each image its own key")
            joined.rows[record.key] = CaptionRow(record)
            continue
        file = row[_column(list(row), FILE_COLUMNS, where)]
        texts = _texts(row[_column(list(row), CAPTION_COLUMNS, where)], where)
        joined.add(str(file), texts, row.get("split"), where)
    return list(joined.rows.values())


def _from_coco(content: dict[str, Any], path: Path) -> list[CaptionRow]:
    """COCO's captions_*.json: `images` with id and file_name, `annotations` with image_id and caption."""
    rows: dict[Any, CaptionRow] = {}
    try:
        for image in content["images"]:
            record = Record(str(image["id"]), image["file_name"], metadata={"image_id": image["id"]})
            rows[image["id"]] = CaptionRow(record)
        for annotation in content["annotations"]:
            rows[annotation["image_id"]].record.captions.append(Caption(annotation["caption"]))
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a COCO captions file (missing or wrong: {error})") from error
    return list(rows.values())
