"""Predictions and references from files: COCO's formats, JSON by image id, and JSON lines."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capkit.errors import UsageError

_IDS = ("image_id", "image", "key", "id")
_CAPTIONS = ("caption", "captions", "references")
_SHAPES = (
    'a list of {"image_id": .., "caption": ".."}, {"annotations": [the same]}, {id: [captions]}, or JSON lines of '
    '{"image_id" or "image" or "key": .., "caption" or "captions" or "references": ..}'
)


def read_predictions(path: Path) -> dict[str, str]:
    """One caption for each image id. Raises UsageError where an image has several, or none is found."""
    predictions: dict[str, str] = {}
    repeated = []
    for image, caption in _captions(path):
        repeated += [image] if image in predictions else []
        predictions[image] = caption
    if repeated:
        raise UsageError(
            f"{path}: one prediction per image is wanted; {len(repeated)} came twice: {named(repeated)}; keep one each"
        )
    return predictions


def read_references(path: Path) -> dict[str, list[str]]:
    """All captions of each image id, in the file's order."""
    references: dict[str, list[str]] = {}
    for image, caption in _captions(path):
        references.setdefault(image, []).append(caption)
    return references


def named(images: list[str], most: int = 5) -> str:
    rest = len(images) - most
    return ", ".join(images[:most]) + (f" and {rest} more" if rest > 0 else "")


def _captions(path: Path) -> list[tuple[str, str]]:
    """(image id, caption) pairs of a file. Raises UsageError where there is none, or it has another shape."""
    if not path.is_file():
        raise UsageError(f"no file {str(path)!r}; give the path of a JSON or JSON-lines file of captions")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    pairs = list(_pairs(_parse(text, path), path))
    if not pairs:
        raise UsageError(f"{path}: no captions in it; wanted {_SHAPES}")
    return pairs


def _parse(text: str, path: Path) -> Any:
    """The file's JSON; JSON lines become a list."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as whole:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        if path.suffix.lower() != ".jsonl" and len(lines) < 2:
            raise UsageError(f"{path}: not JSON ({whole}); wanted {_SHAPES}") from whole
    rows = []
    for number, line in lines:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UsageError(f"{path} line {number}: not JSON ({error}); wanted {_SHAPES}") from error
    return rows


def _pairs(content: Any, path: Path) -> Iterator[tuple[str, str]]:
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        content = content["annotations"]
    elif isinstance(content, dict) and not any(name in content for name in _CAPTIONS):
        content = [{"image_id": image, "captions": captions} for image, captions in content.items()]
    rows = content if isinstance(content, list) else [content]
    for number, row in enumerate(rows, 1):
        image = _first(row, _IDS, path, number)
        if isinstance(image, bool) or not isinstance(image, str | int):
            raise UsageError(f"{path} entry {number}: an image id is text or a whole number; got {image!r}")
        yield from ((str(image), caption) for caption in _texts(_first(row, _CAPTIONS, path, number), path, number))


def _first(row: Any, names: tuple[str, ...], path: Path, number: int) -> Any:
    for name in names:
        if isinstance(row, dict) and name in row:
            return row[name]
    raise UsageError(f"{path} entry {number}: no {' or '.join(map(repr, names))} in it; wanted {_SHAPES}")


def _texts(value: Any, path: Path, number: int) -> list[str]:
    """Captions as written: one, several, or records with a text each."""
    values = value if isinstance(value, list) else [value]
    texts: list[Any] = [item.get("text", item.get("caption")) if isinstance(item, dict) else item for item in values]
    for text in texts:
        if not isinstance(text, str):
            raise UsageError(f"{path} entry {number}: a caption is text; got {text!r}")
    return texts
