"""Cache of answers on disk by model and question.

    <cache_dir>/<fingerprint of the model's about()>/about.json      model, revision, decoding settings
                                                     answers.jsonl   {"key": ..., "text": ...} per line

The key hashes system message, text, pictures' pixels and the sample's number. Lines are appended under a lock, so
several processes may share a folder. A refused reply that was asked again is a line with "text": null, "failure" and
"said"; "tokens" holds the counts and "first_logprobs" those of the first token, where they are known, "question" and
"system" the words that were asked, "pictures" how many came with them. A refused reply has no question: what has one
can be learned from (`data=answers`).
"""

import fcntl
import json
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from capkit.errors import UsageError
from capkit.llm.base import Answer, Question
from capkit.utils.renamed import moved_names
from capkit.utils.store import digest, fingerprint, write_about

__getattr__ = moved_names(__name__)  # Asker was CachedModel

FLUSH_COUNT = 100
FLUSH_S = 1.0
_LENGTH = 0xFFFFFFFF


def question_key(question: Question) -> str:
    """Hash of all of a question; of pictures, their pixels.

    A text with at most one picture has the key that version 0.1 gave it, so that answers of its stores are found.
    """
    pixels: list[bytes] = []
    for picture in question.pictures:
        array = np.ascontiguousarray(picture.pixels)
        pixels += [repr(array.shape).encode(), array.tobytes()]
    rest = {"system": question.system, "sample": question.sample, "schema": question.schema}
    if len(question.pictures) <= 1 and rest == {"system": None, "sample": 0, "schema": None}:
        return digest(question.text.encode(), *pixels).hex()
    head = json.dumps({"text": question.text, **rest}, sort_keys=True)
    return digest(b"question", head.encode(), *pixels).hex()


class AnswerStore:
    """The unparsed answers of one model. Keys and file positions are in memory, texts on disk.

    An answer that was added is with the operating system at once, so that a killed process loses none, and on disk
    (fsync) with FLUSH_COUNT others or within FLUSH_S, which a crash of the machine can lose. Threads may share a store.
    """

    def __init__(self, cache_dir: str | Path, about: Mapping[str, Any]) -> None:
        self.folder = Path(cache_dir) / fingerprint(about)
        self._places: dict[str, int] = {}  # start << 32 | length: one number takes half the memory of a pair
        self._read_to = self._num_unsynced = 0
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()
        try:
            # Rewritten, not verified: the fingerprint determines its content, and answers are too costly to discard.
            write_about(self.folder, about)
            self._file = os.open(self.folder / "answers.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise UsageError(
                f"cache_dir must be a folder that can be written; {cache_dir}: {error.strerror}; give another cache_dir"
            ) from error
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        with self._lock:
            self._refresh()
            return len(self._places)

    def get(self, key: str) -> Answer | None:
        """The stored answer to a key, by whichever process; None if there is none."""
        with self._lock:
            if (place := self._places.get(key)) is None:
                self._refresh()
                place = self._places.get(key)
        return None if place is None else _answer(json.loads(os.pread(self._file, place & _LENGTH, place >> 32)))

    def read(self, keys: Sequence[str]) -> dict[str, Answer]:
        """The stored answers to these keys."""
        return {key: answer for key in keys if (answer := self.get(key)) is not None}

    def add(self, key: str, answer: Answer, question: Question | None = None) -> None:
        """Keep an answer, or a refused one (without text, with what was said), with the words of its question."""
        with self._lock:
            self._append([_row(key, answer, question)])
            if self._num_unsynced >= FLUSH_COUNT:
                self.flush()
            elif self._timer is None:
                self._timer = threading.Timer(FLUSH_S, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def write(self, answers: Mapping[str, Answer]) -> None:
        """Keep answers; they are on disk (fsync) when this returns."""
        with self._lock:
            self._append([_row(key, answer) for key, answer in answers.items()])
            self.flush()

    def flush(self) -> None:
        """What was added is on disk (fsync) when this returns."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._num_unsynced:
                os.fsync(self._file)
                self._num_unsynced = 0

    def _append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                end = os.fstat(self._file).st_size
                is_cut = end > 0 and os.pread(self._file, 1, end - 1) != b"\n"  # by a killed process: a line is lost
                _write_all(self._file, b"\n" * is_cut + lines)
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
            self._num_unsynced += len(rows)

    def _refresh(self) -> None:
        """Index complete lines added since the last call; lines truncated by a killed process are invalid JSON."""
        if os.fstat(self._file).st_size == self._read_to:
            return
        with open(self._file, "rb", closefd=False) as file:
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                with suppress(ValueError):
                    self._places[json.loads(line)["key"]] = self._read_to << 32 | len(line)
                self._read_to += len(line)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _row(key: str, answer: Answer, question: Question | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {"key": key, "text": answer.text}
    if answer.text is None:
        row |= {"failure": answer.failure, "said": answer.said}
    if answer.tokens_in is not None or answer.tokens_out is not None:
        row["tokens"] = [answer.tokens_in, answer.tokens_out]
    row |= {"first_logprobs": dict(answer.first_logprobs)} if answer.first_logprobs is not None else {}
    if question is not None:
        row["question"] = question.text
        row |= {"system": question.system} if question.system is not None else {}
        row |= {"pictures": len(question.pictures)} if question.pictures else {}
    return row


def _answer(row: Mapping[str, Any]) -> Answer:
    tokens_in, tokens_out = row.get("tokens", (None, None))
    first = row.get("first_logprobs")
    return Answer(row["text"], row.get("failure"), row.get("said"), tokens_in, tokens_out, first_logprobs=first)
