"""Cache of answers on disk by model and question, and a model that is asked only uncached questions.

    <cache_dir>/<fingerprint of the model's fingerprint_fields()>/about.json      model, revision, decoding settings
                                                                  answers.jsonl   {"key": ..., "text": ...} per line

The key hashes the prompt and the picture's pixels. Lines are appended under a lock, so several processes may share a
folder; a killed one loses only answers not yet written. Failed and rejected answers are not cached.
"""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from capkit.errors import UsageError
from capkit.llm.base import Answer, Picture, TextLM, VisionChat
from capkit.utils.store import digest, fingerprint, write_about


class Unparsable(Exception):
    """An answer in the wrong format; the message is the reason."""


Parse = Callable[[str], str]


def question_key(prompt: str, picture: Picture | None = None) -> str:
    """Hash of a prompt and the pixels of its picture."""
    if picture is None:
        return digest(prompt.encode()).hex()
    pixels = np.ascontiguousarray(picture.pixels)
    return digest(prompt.encode(), repr(pixels.shape).encode(), pixels.tobytes()).hex()


def _keys(prompts: Sequence[str], pictures: Sequence[Picture] | None) -> list[str]:
    if pictures is None:
        return [question_key(prompt) for prompt in prompts]
    return [question_key(prompt, picture) for prompt, picture in zip(prompts, pictures, strict=True)]


class AnswerStore:
    """The unparsed answers of one model. Keys and file positions are in memory, texts on disk."""

    def __init__(self, cache_dir: str | Path, about: Mapping[str, Any]) -> None:
        self.folder = Path(cache_dir) / fingerprint(about)
        self._file = self.folder / "answers.jsonl"
        self._places: dict[str, tuple[int, int]] = {}
        self._read_to = 0
        try:
            # Rewritten, not verified: the fingerprint determines its content, and answers are too costly to discard.
            write_about(self.folder, about)
        except OSError as error:
            raise UsageError(
                f"cache_dir must be a folder that can be written; {cache_dir}: {error.strerror}; give another cache_dir"
            ) from error

    def __len__(self) -> int:
        self._refresh()
        return len(self._places)

    def read(self, keys: Sequence[str]) -> dict[str, str]:
        """The stored answers to these keys, including those of other processes."""
        self._refresh()
        found = {}
        if self._file.exists():
            with self._file.open("rb") as file:
                for key in keys:
                    if key in self._places:
                        start, length = self._places[key]
                        file.seek(start)
                        found[key] = json.loads(file.read(length))["text"]
        return found

    def write(self, answers: Mapping[str, str]) -> None:
        """Append answers; they are on disk (fsync) when this returns."""
        lines = "".join(json.dumps({"key": key, "text": text}) + "\n" for key, text in answers.items())
        with self._file.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            is_cut = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"  # by a killed process: its line is lost
            file.write(("\n" * is_cut + lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def _refresh(self) -> None:
        """Index complete lines added since the last call; lines truncated by a killed process are invalid JSON."""
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                with suppress(ValueError):
                    self._places[json.loads(line)["key"]] = (self._read_to, len(line))
                self._read_to += len(line)


class CachedModel:
    """A model whose answers are parsed, and cached if they are valid.

    `counts` counts questions answered from the cache (`cached`), put to the model (`asked`), and of these those without
    a valid answer (`failed`).
    """

    def __init__(self, model: TextLM | VisionChat, cache_dir: str | Path, parse: Parse) -> None:
        self._model, self._parse = model, parse
        self._store = AnswerStore(cache_dir, model.fingerprint_fields())
        self.counts = Counter(cached=0, asked=0, failed=0)

    def ask(self, prompts: Sequence[str], pictures: Sequence[Picture] | None = None) -> list[Answer]:
        """One parsed answer per prompt, in order. Duplicate questions are asked once."""
        keys = _keys(prompts, pictures)
        answers = {key: answer for key, text in self._store.read(keys).items() if (answer := self._read(text)).text}
        self.counts["cached"] += sum(key in answers for key in keys)
        open_questions = {key: i for i, key in reversed(list(enumerate(keys))) if key not in answers}
        if open_questions:
            places = sorted(open_questions.values())
            asked = None if pictures is None else [pictures[i] for i in places]
            said = self._answers([prompts[i] for i in places], asked)
            answers |= dict(zip([keys[i] for i in places], said, strict=True))
        return [answers[key] for key in keys]

    def _answers(self, prompts: list[str], pictures: list[Picture] | None) -> list[Answer]:
        """Ask the model, cache the valid answers, and return all of them parsed."""
        model: Any = self._model
        said = model.complete(prompts) if pictures is None else model.answer(prompts, pictures)
        read = [answer if answer.text is None else self._read(answer.text) for answer in said]
        keys = _keys(prompts, pictures)
        kept = {key: str(said[i].text) for i, key in enumerate(keys) if read[i].text is not None}
        if kept:
            self._store.write(kept)
        self.counts.update(asked=len(read), failed=len(read) - len(kept))
        return read

    def _read(self, text: str) -> Answer:
        try:
            return Answer(self._parse(text))
        except Unparsable as problem:
            return Answer(None, f"unparsable answer: {problem}", said=text)
