"""Memes with candidate captions: a JSON list, or JSON lines, of {"img", "text", "label", "split", caption keys ...}.

The form of CAMU's files (arXiv 2504.17902) for Hateful Memes and MultiOFF; docs/camu.md shows one.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from capkit.data.files import ImageFiles
from capkit.data.records import Caption, Record, check_unique_keys
from capkit.data.sources.folder import existing_folder
from capkit.data.sources.listed import ListedPictures
from capkit.errors import UsageError, check_choice, did_you_mean
from capkit.text.caption_text import clean_text, printed_list
from capkit.utils.text_files import (
    SPLIT_OF,
    NotJson,
    existing_file,
    expect,
    file_name,
    has_lone_surrogate,
    read_json_or_lines,
    shown,
)

TEXT_MODES = ("none", "caption", "candidate")


def candidate_captions(captions: dict[str, str], text: str, mode: str) -> list[Caption]:
    """A meme's candidates by who wrote them, with the meme's own text where `mode` puts it.

    none: the captions as they are. caption: the text before each ("TEXT. CAPTION"); an empty caption stays empty.
    candidate: the text is one more candidate.
    """
    check_choice("text", mode, TEXT_MODES)
    cleaned, text = {name: clean_text(caption) for name, caption in captions.items()}, clean_text(text)
    if mode == "caption" and text:
        cleaned = {name: f"{text}. {caption}" if caption else "" for name, caption in cleaned.items()}
    if mode == "candidate":
        cleaned["text"] = text
    return [Caption(caption, source=name) for name, caption in cleaned.items()]


class Memes(ListedPictures):
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
        self.files = ImageFiles(existing_folder(images, "images").absolute())
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
        records = [self._record(row, where) for where, row in rows if _split(row) == self._split]
        if not records:
            splits = sorted({str(_split(row)) for _, row in rows})
            raise UsageError(f"{self._path}: no meme is in split {self._split!r}; the file has {', '.join(splits)}")
        check_unique_keys(records, str(self._path))
        return records

    def _record(self, row: dict[str, Any], where: str) -> Record:
        if not isinstance(row.get("img"), str):
            raise UsageError(f"{where}: wanted 'img', the picture's path below images; got {shown(row.get('img'))}")
        if row.get("label") not in (0, 1):
            raise UsageError(f"{where}: wanted a label of 0 or 1; got {shown(row.get('label'))}")
        image = file_name(row["img"], where, "img")
        key = str(expect(row.get("id", image), "text or a whole number", where, "id"))
        if has_lone_surrogate(key):
            raise UsageError(f"{where}: 'id' must be valid Unicode; got {shown(key)}")
        captions = {name: _text(row, name, where) for name in self._candidates}
        text = _text(row, "text", where)
        candidates = candidate_captions(captions, text, self._text)
        return Record(
            key=key,
            image=image,
            captions=candidates,
            metadata={"label": int(row["label"]), "text": text, "candidates": [c.source for c in candidates]},
        )


def _split(row: dict[str, Any]) -> Any:
    """train, val and test of any usual spelling; other splits as they are named."""
    split = row.get("split")
    return SPLIT_OF.get(split.strip().lower(), split) if isinstance(split, str) else split


def _text(row: dict[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{where}: {name!r} should be a text; got {shown(value)}")
    if value and printed_list(value) is not None:
        raise UsageError(f"{where}: {name!r} should be one text; got a list printed as text, {shown(value)}")
    return value or ""


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Each row with where it stands, for errors."""
    try:
        located = read_json_or_lines(path, "annotations")
    except NotJson as error:
        raise UsageError(f"{error}: neither a JSON list nor JSON lines; docs/camu.md shows both") from error
    rows: list[tuple[str, Any]] = list(located)
    if len(located) == 1 and isinstance(located[0].value, list):
        rows = [(f"{path} item {number}", row) for number, row in enumerate(located[0].value)]
    for where, row in rows:
        if not isinstance(row, dict):
            raise UsageError(f"{where}: wanted an object, got {shown(row)}; docs/camu.md shows one")
    return rows
