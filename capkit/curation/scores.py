"""Scores of records' captions, and the file that keeps those of a shard while it is scored."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Float

from capkit.curation.base import batches
from capkit.data.records import Record
from capkit.data.sources.base import DataSource
from capkit.errors import UsageError
from capkit.scorers.base import BaseScorer, score_captions
from capkit.utils.text_files import parse_json

Scores = list[float | None]


def score_records(scorer: BaseScorer, records: Sequence[Record]) -> list[Float[np.ndarray, " N"]]:
    """The scores of each record's captions, NaN where there is none.

    A scorer that compares with references is given the record's other captions.
    """
    texts = [[caption.text for caption in record.captions] for record in records]
    values = score_captions(
        scorer,
        captions=[text for own in texts for text in own],
        keys=[record.key for record, own in zip(records, texts, strict=True) for _ in own],
        references=[own[:i] + own[i + 1 :] for own in texts for i in range(len(own))],
        metadata=[record.metadata for record, own in zip(records, texts, strict=True) for _ in own],
    )
    ends = np.cumsum([len(own) for own in texts])
    return np.split(values, ends[:-1])


def no_training_references() -> NoReturn:
    raise UsageError(
        "this scorer counts document frequencies, which would differ from shard to shard; give it those of a file "
        "(document_frequencies=FILE), or take another scorer"
    )


def scored(record: Record, scores: Scores) -> Record:
    """The record, its captions with these scores."""
    pairs = zip(record.captions, scores, strict=True)
    return replace(record, captions=[replace(caption, score=score) for caption, score in pairs])


class ScoreFile:
    """The scores of a shard's records, a line a record in order: what is there is not scored again.

    A batch's lines are written together, and a batch that a kill cut off is scored anew as a whole, so that scores are
    those of a run that was never stopped.
    """

    def __init__(self, path: Path, batch_size: int) -> None:
        self._path, self._batch_size = path, batch_size

    def fill(self, source: DataSource, indices: range, scorer: BaseScorer, watch: Callable[[int], None]) -> None:
        """Score the records that have no line yet. `watch` is told how many are done."""
        done = self._keep_whole_batches(len(indices))
        watch(done)
        with self._path.open("a", encoding="utf-8") as file:
            for batch in batches(map(source.record, indices[done:]), self._batch_size):
                values = score_records(scorer, batch)
                rows = zip(batch, values, strict=True)
                file.write("".join(json.dumps([record.key, _plain(own)]) + "\n" for record, own in rows))
                file.flush()
                done += len(batch)
                watch(done)

    def records(self, source: DataSource, indices: range) -> Iterator[Record]:
        """The records with their scores. Raises UsageError if they are not those that were scored."""
        with self._path.open("rb") as lines:
            for index, line in zip(indices, lines, strict=True):
                (key, scores), record = parse_json(line.decode(), str(self._path)), source.record(index)
                if key != record.key or len(scores) != len(record.captions):
                    raise UsageError(
                        f"{self._path}: expected {len(record.captions)} scores of record {record.key!r}, got "
                        f"{len(scores)} of {key!r}: the data changed since they were written; delete the file"
                    )
                yield scored(record, scores)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def _keep_whole_batches(self, num_records: int) -> int:
        """Cut off what a killed process left of a batch; returns the number of lines that stay."""
        if not self._path.exists():
            return 0
        lines = self._path.read_bytes().splitlines(keepends=True)
        whole = len(lines) - (bool(lines) and not lines[-1].endswith(b"\n"))
        if whole != num_records:
            whole -= whole % self._batch_size
        with self._path.open("r+b") as file:
            file.truncate(sum(map(len, lines[:whole])))
        return whole


def _plain(scores: Float[np.ndarray, " N"]) -> Scores:
    """NaN is no JSON."""
    return [None if math.isnan(score) else float(score) for score in scores]
