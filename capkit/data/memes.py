"""Memes with candidate captions: a JSON list, or JSON lines, of {"img", "text", "label", "split", caption keys ...}.

The form of CAMU's files (arXiv 2504.17902) for Hateful Memes and MultiOFF; docs/camu.md shows one.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from capkit.caption_text import clean_text
from capkit.data.files import ImageFiles
from capkit.data.folder import existing_folder
from capkit.data.manifest import Caption, Record, check_unique_keys
from capkit.errors import UsageError, did_you_mean
from capkit.text_files import existing_file

TEXT_MODES = ("none", "caption", "candidate")


def candidate_captions(captions: dict[str, str], text: str, mode: str) -> list[Caption]:
    """A meme's candidates by who wrote them, with the meme's own text where `mode` puts it.

    none: the captions as they are. caption: the text before each ("TEXT. CAPTION"); an empty caption stays empty.
    candidate: the text is one more candidate.
    """
    if mode not in TEXT_MODES:
        raise UsageError(f"text must be one of {', '.join(TEXT_MODES)}; got {mode!r}")
    cleaned, text = {name: clean_text(caption) for name, caption in captions.items()}, clean_text(text)
    if mode == "caption" and text:
        cleaned = {name: f"{text}. {caption}" if caption else "" for name, caption in cleaned.items()}
    if mode == "candidate":
        cleaned["text"] = text
    return [Caption(caption, source=name) for name, caption in cleaned.items()]


class Memes:
    """The memes of one split of a file, with their candidate captions in the order of `candidates`.

    `candidates` names the keys that hold captions. A caption that is missing, null or empty is no candidate: models
    refuse to describe hateful pictures. `text` says how the text on the meme enters: see `candidate_captions`. Records
    have the label (1: hateful), the text and the candidates' names in their metadata; "id" is the key where the file
    has it, else "img".
    """

    def __init__(
        self,
        images: str | None,
        annotations: str | None,
        split: str,
        candidates: Sequence[str] = (),
        text: str = "none",
    ) -> None:
        self._files = ImageFiles(existing_folder(images, "images").absolute())
        if annotations is None:
            raise UsageError("annotations: none given; add annotations=FILE, a JSON list of memes (docs/camu.md)")
        self._path = existing_file(annotations, "annotations").absolute()
        self._split, self._candidates, self._text = split, tuple(candidates), text
        if len(set(self._candidates)) < len(self._candidates) or not (self._candidates or text == "candidate"):
            raise UsageError(
                f"candidates names the keys that hold captions, each once; got {list(self._candidates)}; "
                "without any, the memes' own text can be read: text=candidate"
            )
        candidate_captions({}, "", text)

    @cached_property
    def _records(self) -> list[Record]:
        rows = _rows(self._path)
        for name in self._candidates:
            if not any(name in row for _, row in rows):
                keys = {key for _, row in rows for key in row}
                raise UsageError(f"{self._path}: no meme has a caption {name!r}; {did_you_mean(name, keys)}")
        records = [self._record(row, where) for where, row in rows if row.get("split") == self._split]
        if not records:
            splits = sorted({str(row.get("split")) for _, row in rows})
            raise UsageError(f"{self._path}: no meme is in split {self._split!r}; the file has {', '.join(splits)}")
        check_unique_keys(records, str(self._path))
        return records

    def _record(self, row: dict[str, Any], where: str) -> Record:
        if not isinstance(row.get("img"), str):
            raise UsageError(f"{where}: wanted 'img', the picture's path below images; got {row.get('img')!r}")
        if row.get("label") not in (0, 1):
            raise UsageError(f"{where}: wanted a label of 0 or 1; got {row.get('label')!r}")
        captions = {name: _text(row, name, where) for name in self._candidates}
        text = _text(row, "text", where)
        candidates = candidate_captions(captions, text, self._text)
        return Record(
            key=str(row.get("id", row["img"])),
            image=row["img"],
            captions=candidates,
            metadata={"label": int(row["label"]), "text": text, "candidates": [c.source for c in candidates]},
        )

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> Record:
        return self._records[index]

    def image(self, index: int) -> np.ndarray:
        return self._files.load(self._records[index].image)


def _text(row: dict[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{where}: {name!r} should be a text; got {json.dumps(value)[:80]}")
    return value or ""


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Each row with where it stands, for errors."""
    try:
        content = path.read_text(encoding="utf-8-sig")
        if content.lstrip().startswith("["):
            rows = [(f"{path} item {number}", row) for number, row in enumerate(json.loads(content))]
        else:
            lines = enumerate(content.splitlines(), 1)
            rows = [(f"{path} line {number}", json.loads(line)) for number, line in lines if line.strip()]
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise UsageError(f"{path}: neither a JSON list nor JSON lines ({error}); docs/camu.md shows both") from error
    for where, row in rows:
        if not isinstance(row, dict):
            raise UsageError(f"{where}: wanted an object, got {json.dumps(row)[:80]}; docs/camu.md shows one")
    return rows
