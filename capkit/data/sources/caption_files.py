"""Read caption files in common formats: tables, JSON (four layouts), JSON lines. docs/data.md shows each."""

import posixpath
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capkit.data.records import Caption, Record, check_unique_keys, record_from_row
from capkit.data.sources.caption_tables import CAPTION_COLUMNS, FILE_COLUMNS, caption_columns, file_column, read_table
from capkit.data.sources.chat_rows import ChatRows, is_chat
from capkit.errors import UsageError
from capkit.text.caption_text import caption_texts
from capkit.utils.text_files import expect, file_name, member, read_json_or_lines, read_text, shown, split_name

_TABLES = (".csv", ".tsv", ".txt", ".token")
_JSON = (".json", ".jsonl")
_PICKLES = (".pkl", ".pickle", ".pt", ".pth")


@dataclass
class CaptionRow:
    """A record, and its split if the file has one."""

    record: Record
    split: str | None = None


def read_captions(path: Path) -> list[CaptionRow]:
    """Read one row per image in the file's order; captions of several rows of an image are joined.

    Raises UsageError with file and line, item or entry for anything but the documented formats.
    """
    suffix = path.suffix.lower()
    if suffix in _TABLES:
        joined = _Joined()
        for row in read_table(read_text(path, "captions"), path):
            joined.add(row.file, [_caption(text, row.language) for text in row.captions], row.split, row.where)
        rows = joined.all()
    elif suffix in _JSON:
        rows = _read_json(path)
    elif suffix in _PICKLES:
        raise UsageError(
            f"captions: {path.name!r} is a pickle, which can run any code as it is read, so it is not; give the file "
            "that it was made from (ClipCap's pickles hold COCO's captions: data=coco), or, where you trust it, write "
            "its captions as JSON lines of {file, caption} yourself; docs/data.md has a line that does so"
        )
    else:
        raise UsageError(
            f"captions: {path.name!r} should end in {', '.join([*_TABLES, *_JSON])}; docs/data.md shows each shape"
        )
    if not rows:
        raise UsageError(f"{path}: no captions in it; docs/data.md shows the shapes that are read")
    check_rows(rows, str(path))
    without = [row.record.key for row in rows if row.split is None]
    if without and len(without) < len(rows):
        warnings.warn(
            f"{path}: {len(without)} of {len(rows)} images have no split and are used in none, e.g. {without[0]!r}",
            stacklevel=2,
        )
    return rows


def check_rows(rows: Sequence[CaptionRow], where: str) -> None:
    """Raise UsageError if a split has a key or a picture twice; warn about pictures in two splits."""
    for split in {row.split for row in rows}:
        check_unique_keys((row.record for row in rows if row.split == split), where)
    seen: dict[str, list[CaptionRow]] = {}
    in_two: list[str] = []
    for row in rows:
        if row.record.image is None:
            continue
        picture = posixpath.normpath(row.record.image)
        for other in seen.setdefault(picture, []):
            if other.split == row.split:
                names = f"{other.record.key!r} and {row.record.key!r}"
                raise UsageError(f"{where}: two records of the picture {picture!r}, {names}; give a picture one record")
            in_two.append(f"{picture!r} ({other.split} and {row.split})")
        seen[picture].append(row)
    if in_two:
        examples = ", ".join(in_two[:3]) + (" ..." if len(in_two) > 3 else "")
        warnings.warn(
            f"{where}: {len(in_two)} pictures are in two splits, so that a model is tested on its training data: "
            f"{examples}; give a picture one split",
            stacklevel=2,
        )


class _Joined:
    """Collects rows by image, in order of first appearance."""

    def __init__(self) -> None:
        self._rows: dict[str, CaptionRow] = {}

    def all(self) -> list[CaptionRow]:
        return list(self._rows.values())

    def add(self, file: str, captions: list[Caption], split: str | None, where: str) -> None:
        row = self._rows.setdefault(file, CaptionRow(Record(file, file), split))
        row.split = row.split or split
        if split not in (None, row.split):
            raise UsageError(f"{where}: {file!r} is in split {split!r} and in {row.split!r}; give an image one split")
        row.record.captions += captions


def _caption(text: str, language: str | None) -> Caption:
    return Caption(text) if language is None else Caption(text, language=language)


def _captions(value: Any, language: str | None, where: str) -> list[Caption]:
    """The captions of one entry, each with its own language if it is an object that says one, or else the entry's."""
    if not isinstance(value, list) or not any(isinstance(item, dict) and "language" in item for item in value):
        return [_caption(text, _language(value, where) or language) for text in caption_texts(value, where)]
    return [
        _caption(text, _language(item, where) or language) for item in value for text in caption_texts([item], where)
    ]


def _language(item: Any, where: str) -> str | None:
    """What an object says of its language; None for a text or if it says nothing."""
    language = item.get("language") if isinstance(item, dict) else None
    return None if language in (None, "") else expect(language, "text", where, "language")


def _split(row: dict[str, Any], where: str) -> str | None:
    split = row.get("split")
    return None if split in (None, "") else split_name(split, where)


def _read_json(path: Path) -> list[CaptionRow]:
    located = read_json_or_lines(path, "captions")
    if len(located) > 1:
        return _from_objects(located)
    content = located[0].value
    if isinstance(content, list):
        return _from_objects([(f"{path} item {number}", row) for number, row in enumerate(content)])
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected an object or a list, got {shown(content)}; docs/data.md shows the formats")
    if is_chat(content):
        return _from_objects(located)
    if isinstance(content.get("annotations"), list):
        return rows_of_coco(content, path)
    if isinstance(content.get("images"), list):
        raise _without_annotations(content["images"], path)
    if "key" in content or (file_column(list(content)) is not None and caption_columns(list(content))):
        return _from_objects(located)
    joined = _Joined()
    for file, value in content.items():
        where = f"{path}, image {file!r}"
        if isinstance(value, list) and any(
            isinstance(item, dict) and file_column(list(item)) is not None for item in value
        ):
            raise UsageError(f"{where}: a list of entries that name files themselves; give this list alone")
        joined.add(file_name(file, where), _captions(value, None, where), None, where)
    return joined.all()


def _without_annotations(images: list[Any], path: Path) -> UsageError:
    if images and not any(isinstance(image, dict) and "sentences" in image for image in images):
        return UsageError(
            f"{path}: 'images' without 'annotations', a COCO file without captions; give one with captions, such as "
            "captions_val2017.json"
        )
    return UsageError(f"{path}: looks like a Karpathy split file; read it with data=karpathy")


def _from_objects(objects: Sequence[tuple[str, Any]]) -> list[CaptionRow]:
    """Rows of objects with a file and its captions, of chats, or of manifest records, recognised by their 'key'."""
    joined, chats = _Joined(), ChatRows()
    records: dict[str, CaptionRow] = {}
    for where, row in objects:
        if not isinstance(row, dict):
            raise UsageError(f"{where}: expected an object, got {shown(row)}")
        if is_chat(row):
            if (found := chats.read(row, where)) is not None:
                joined.add(*found, _split(row, where), where)
            continue
        if "key" in row:
            record = record_from_row(row, where)
            if record.key in records:
                raise UsageError(f"{where}: two records have the key {record.key!r}; give each image its own key")
            records[record.key] = CaptionRow(record)
            continue
        names = list(row)
        file_at, captions_at = file_column(names), caption_columns(names)
        for wanted, is_there in ((FILE_COLUMNS, file_at is not None), (CAPTION_COLUMNS, captions_at)):
            if not is_there:
                raise UsageError(
                    f"{where}: no column named {' or '.join(wanted)}; the columns are {', '.join(names) or 'none'}"
                )
        assert file_at is not None
        language = _language(row, where)
        captions = [caption for place in captions_at for caption in _captions(row[names[place]], language, where)]
        joined.add(file_name(row[names[file_at]], where), captions, _split(row, where), where)
    if objects:
        chats.warn(objects[0][0])
    return [*records.values(), *joined.all()]


def rows_of_coco(content: dict[str, Any], path: Path) -> list[CaptionRow]:
    """COCO's captions_*.json: `images` with id and file_name, `annotations` with image_id and caption.

    Ids are compared as text, since some programs write 17 in one list and "17" in the other.
    """
    rows: dict[str, CaptionRow] = {}
    for number, image in enumerate(member(content, "images", "a list", str(path))):
        where = f"{path} images, item {number}"
        identity = member(expect(image, "an object", where), "id", "text or a whole number", where)
        if str(identity) in rows:
            raise UsageError(f"{where}: two images have the id {shown(identity)}; give each image its own id")
        file = file_name(image.get("file_name"), where, "file_name")
        rows[str(identity)] = CaptionRow(Record(str(identity), file, metadata={"image_id": identity}))
    for number, annotation in enumerate(content["annotations"]):
        where = f"{path} annotations, item {number}"
        identity = member(expect(annotation, "an object", where), "image_id", "text or a whole number", where)
        if str(identity) not in rows:
            raise UsageError(f"{where}: no item of 'images' has the id {shown(identity)}; add it, or drop the caption")
        if "caption" not in annotation:
            raise UsageError(f"{where}: no 'caption'; give a file of captions, such as captions_val2017.json")
        rows[str(identity)].record.captions += [
            Caption(text) for text in caption_texts(annotation["caption"], f"{where}, image {identity!r}")
        ]
    return list(rows.values())
