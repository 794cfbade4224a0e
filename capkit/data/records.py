"""Records (an image with its captions and metadata) and their JSONL format."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from capkit.errors import UsageError, did_you_mean
from capkit.text.caption_text import caption_texts
from capkit.utils.files import atomic_path
from capkit.utils.seeds import stable_hash
from capkit.utils.text_files import decode, existing_file, file_name, has_lone_surrogate, parse_json, shown


@dataclass(frozen=True, slots=True)
class Added:
    """What a data step offered for a caption beside what it was written from: a finding's text, by whom, how sure."""

    text: str
    expert: str
    score: float


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption with its source ("human", "alt_text", a model's name) and its language as a BCP 47 tag.

    `score` says how well it fits its image, in the units of the scorer that gave it (`capkit align`); None: not scored.
    `added` lists what a data step added to it, and where from (docs/experts.md).
    `prompt` is a text that it answers (`model=text_writer`); None: it answers none.
    `tags` are the parts of speech of its words (`capkit.text.word_classes.words`); None: not tagged.
    """

    text: str
    source: str = "human"
    language: str = "en"
    score: float | None = None
    added: tuple[Added, ...] = ()
    prompt: str | None = None
    tags: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """A box (x0, y0, x1, y1) relative to width and height, with a description of its content."""

    box: tuple[float, float, float, float]
    text: str = ""


@dataclass(slots=True)
class Record:
    """One image with its captions.

    `key` identifies it in predictions and seeds its randomness. `image` is a path (absolute, or relative to the
    source's root), a shard member ("shard.tar::member"), or None if pixels come from elsewhere. `bag` names the group
    of similar images that it belongs to. `object` names what is seen: records with the same value are views of it.
    """

    key: str
    image: str | None = None
    captions: list[Caption] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    bag: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    object: str | None = None


_FIELDS = ("key", "image", "captions", "regions", "bag", "metadata", "object")


def _wrong(where: str, problem: str) -> UsageError:
    return UsageError(f"{where}: {problem}; docs/data.md shows a record")


def _typed(row: dict[str, Any], name: str, kinds: type | tuple[type, ...], default: Any, where: str) -> Any:
    value = row.get(name, default)
    if value is not default and (not isinstance(value, kinds) or isinstance(value, bool)):
        raise _wrong(where, f"{name!r} has a value of the wrong type: {shown(value)}")
    return value


def _captions(value: list[Any] | str, where: str) -> list[Caption]:
    items = [value] if isinstance(value, str) else value
    if all(isinstance(item, str) for item in items):
        return [Caption(text) for text in caption_texts(items, where)]
    return [_caption(item, where) for item in items]


def _caption(value: Any, where: str) -> Caption:
    fields = {"text": value} if isinstance(value, str) else value
    if not isinstance(fields, dict) or "text" not in fields or set(fields) - {*Caption.__slots__}:
        raise _wrong(
            where,
            f"a caption is a text or {{text, source, language, score, added, prompt, tags}}, not {shown(value)}",
        )
    for name, content in fields.items():
        if name == "score":
            if content is not None and not is_number(content):
                raise _wrong(where, f"'score' of a caption is a finite number or null, not {shown(content)}")
        elif name == "added":
            if not isinstance(content, list):
                raise _wrong(where, f"'added' of a caption is a list, not {shown(content)}")
        elif name == "tags":
            if not isinstance(content, list) or not all(isinstance(tag, str) for tag in content):
                raise _wrong(where, f"'tags' of a caption is a list of texts, not {shown(content)}")
        elif not isinstance(content, str) and not (name == "prompt" and content is None):
            raise _wrong(where, f"{name!r} of a caption is a text, not {shown(content)}")
    score, added = fields.get("score"), tuple(_added(item, where) for item in fields.get("added", ()))
    tags = None if "tags" not in fields else tuple(fields["tags"])
    return Caption(**{**fields, "score": None if score is None else float(score), "added": added, "tags": tags})


def _added(value: Any, where: str) -> Added:
    if not isinstance(value, dict) or set(value) != {*Added.__slots__} or not is_number(value["score"]):
        raise _wrong(where, f"'added' of a caption lists {{text, expert, score}}, not {shown(value)}")
    if not isinstance(value["text"], str) or not isinstance(value["expert"], str):
        raise _wrong(where, f"'text' and 'expert' of what was added to a caption are texts, not {shown(value)}")
    return Added(value["text"], value["expert"], float(value["score"]))


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _region(value: Any, where: str) -> Region:
    box = value.get("box") if isinstance(value, dict) else None
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(x, int | float) for x in box):
        raise _wrong(where, f"a region is {{box: [x0, y0, x1, y1], text}}, not {shown(value)}")
    x0, y0, x1, y1 = box
    if not (0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1):
        raise _wrong(where, f"a box needs 0 <= x0 <= x1 <= 1 and the same for y, not {shown(box)}")
    return Region((float(x0), float(y0), float(x1), float(y1)), _typed(value, "text", str, "", where))


def record_from_row(row: Any, where: str) -> Record:
    """Validate a parsed JSON object and build a Record; `where` starts error messages ("manifest.jsonl line 3")."""
    if not isinstance(row, dict):
        raise _wrong(where, f"expected one JSON object, got {shown(row)}")
    for name in row:
        if name not in _FIELDS:
            raise _wrong(where, f"unknown field {shown(name)}; {did_you_mean(name, _FIELDS)}")
    image = _typed(row, "image", str, None, where)
    key = _typed(row, "key", (str, int), image, where)
    if key is None:
        raise _wrong(where, "a record needs 'key' or 'image'")
    if has_lone_surrogate(str(key)):
        raise _wrong(where, f"a key must be valid Unicode, not {shown(key)}")
    return Record(
        key=str(key),
        image=None if image is None else file_name(image, where, "image"),
        captions=_captions(_typed(row, "captions", (list, str), [], where), where),
        regions=[_region(r, where) for r in _typed(row, "regions", list, [], where)],
        bag=_typed(row, "bag", str, None, where),
        object=_typed(row, "object", str, None, where),
        metadata=_typed(row, "metadata", dict, {}, where),
    )


def parse_line(line: bytes, path: Path, number: int) -> Record:
    where = f"{path} line {number}"
    return record_from_row(parse_json(decode(line, str(path), number), where), where)


def read_manifest(path: str | Path) -> Iterator[Record]:
    """Read the records of a JSONL file in order, skipping blank lines. Raises UsageError with file and line."""
    with existing_file(path, "manifest").open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield parse_line(line, Path(path), number)


def row_of(record: Record) -> dict[str, Any]:
    """A record as JSON, without what it does not have: `record_from_row` gives it back."""
    row = {name: value for name, value in asdict(record).items() if value or name == "key"}
    for caption in row.get("captions", ()):
        for name in ("score", "prompt", "tags"):
            if caption[name] is None:
                del caption[name]
        if not caption["added"]:
            del caption["added"]
    return row


def write_manifest(path: str | Path, records: Iterable[Record]) -> int:
    """Writes records as JSONL, replacing the file only when all are written; returns how many."""
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as lines:
        for record in records:
            lines.write(json.dumps(row_of(record), ensure_ascii=False) + "\n")
            count += 1
    return count


def check_unique_keys(records: Iterable[Record], where: str) -> None:
    """Raise UsageError if two records share a key, since predictions and skipped.jsonl identify images by key."""
    seen: set[int] = set()
    for record in records:
        digest = stable_hash(record.key)
        if digest in seen:
            raise UsageError(f"{where}: two records have the key {record.key!r}; give each image its own key")
        seen.add(digest)
