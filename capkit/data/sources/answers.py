"""Prompts and their answers as training pairs, without pictures: JSON lines, or what a curate run's models answered."""

import json
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from capkit.data.images import BadImage
from capkit.data.records import Caption, Record
from capkit.data.sources.caption_files import CaptionRow
from capkit.data.splits import check_shares, rows_of_split
from capkit.errors import UsageError
from capkit.utils.ranges import PositiveInt, Probability, Seed, check_ranges
from capkit.utils.store import digest
from capkit.utils.text_files import Located, expect, has_lone_surrogate, member, read_json_or_lines, shown, split_name

_STORE = "answers.jsonl"


@check_ranges
class Answers:
    """Answers to prompts: a record for each prompt, whose captions are the answers that were given to it.

    A record's key is a hash of its prompt, so that equal prompts are never in two splits; its metadata have `prompt`.

    Args:
        path: JSON lines {"prompt": ..., "answer": ...}, with "split" where they name one; or a folder of kept answers
            (a step's cache_dir, of one model), whose questions have no pictures.
        split: train, val or test.
        val: Share of the prompts that is held out, likewise `test`, where the lines name no split.
        seed: Of that draw.
        count: Only the first prompts of the split, this many; null: all.
    """

    def __init__(
        self,
        path: str,
        split: str = "train",
        val: Probability = 0.05,
        test: Probability = 0.05,
        seed: Seed = 0,
        count: PositiveInt | None = None,
    ) -> None:
        check_shares(float(val), float(test))
        self._file, self._is_store = _file_of(Path(path))
        self._split, self._shares = split_name(split, "data"), (float(val), float(test))
        self._seed, self._count = seed, count

    @cached_property
    def _records(self) -> list[Record]:
        rows: dict[str, CaptionRow] = {}
        for where, prompt, answer, split in _kept(self._file) if self._is_store else _given(self._file):
            key = digest(prompt.encode()).hex()
            row = rows.setdefault(key, CaptionRow(Record(key, metadata={"prompt": prompt}), split))
            if split != row.split:
                raise UsageError(f"{where}: one prompt is in split {row.split!r} and in {split!r}; give it one split")
            row.record.captions.append(Caption(answer, source="answer", prompt=prompt))
        if not rows:
            raise UsageError(
                f"{self._file}: expected answers, got none; give JSON lines {{prompt, answer}}, or the cache_dir of a "
                "step that has asked a language model"
            )
        chosen = rows_of_split(list(rows.values()), self._split, *self._shares, self._seed, str(self._file))
        return [row.record for row in chosen][: self._count]

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> Record:
        return self._records[index]

    def image(self, index: int) -> np.ndarray:
        raise BadImage("an answer to a prompt has no picture")


def _file_of(path: Path) -> tuple[Path, bool]:
    """The file to read, and whether it holds a model's kept answers."""
    if not path.is_dir():
        if not path.is_file():
            raise UsageError(f"data.path={path}: expected a file of JSON lines or a folder of answers, got neither")
        return path, path.name == _STORE and path.with_name("about.json").is_file()
    found = [path / _STORE] if (path / _STORE).is_file() else sorted(path.glob(f"*/{_STORE}"))
    if len(found) != 1:
        stores = ", ".join(str(file.parent) for file in found[:4]) or "none"
        raise UsageError(
            f"data.path={path}: expected the answers of one model, got {stores}; give the folder of one, whose "
            "about.json says which model it is"
        )
    return found[0], True


def _given(file: Path) -> list[tuple[str, str, str, str | None]]:
    """(place in the file, prompt, answer, split) of each line that a user wrote."""
    located = read_json_or_lines(file, "answers")
    if len(located) == 1 and isinstance(located[0].value, list):
        located = [Located(f"{file} item {number}", value) for number, value in enumerate(located[0].value)]
    rows = []
    for where, value in located:
        row = expect(value, "an object", where)
        prompt, answer = (member(row, name, "text", where) for name in ("prompt", "answer"))
        for name, text in (("prompt", prompt), ("answer", answer)):
            if not text.strip() or has_lone_surrogate(text):
                raise UsageError(f"{where}: expected text as {name!r}, got {shown(text)}; leave the line out")
        split = row.get("split")
        rows.append((where, prompt, answer, None if split in (None, "") else split_name(split, where)))
    return rows


def _kept(file: Path) -> list[tuple[str, str, str, str | None]]:
    """The same of kept answers. Refused ones, and lines that a killed process cut, are left out."""
    rows: list[tuple[str, str, str, str | None]] = []
    num_kept = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            row: Any = None
            with suppress(ValueError):
                row = json.loads(line)
            if not isinstance(row, dict) or "text" not in row:
                continue
            where, num_kept = f"{file} line {number}", num_kept + 1
            if unread := [name for name in ("system", "pictures") if row.get(name)]:
                raise UsageError(
                    f"{where}: expected questions of text alone, got one with {unread[0]}, which a text writer does "
                    "not read; give the answers of another step"
                )
            question, text = row.get("question"), row["text"]
            if isinstance(question, str) and isinstance(text, str) and not has_lone_surrogate(question + text):
                rows.append((where, question, text, None))
    if num_kept and not rows:
        raise UsageError(
            f"{file}: expected answers with their questions, got {num_kept:,} answers alone, kept by an earlier "
            "version; ask again with another cache_dir"
        )
    return rows
