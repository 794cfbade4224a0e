"""A few records of a curate run for its report, drawn by key: the same from one process and from many shards."""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from capkit.curation.steps.gather_findings import FINDINGS
from capkit.data.records import Record
from capkit.utils.rng import stable_hash

NUM_SAMPLES = 20


class Samples:
    """The records with the smallest hashes of their keys, among those that pass.

    `original` gives a record by its key as it was before all steps.
    """

    def __init__(self, original: Callable[[str], Record]) -> None:
        self._original = original
        self._least: list[tuple[int, str, Record]] = []  # a heap of negated hashes

    def passing(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            entry = (-_place(record.key), record.key, record)
            if len(self._least) < NUM_SAMPLES:
                heapq.heappush(self._least, entry)
            elif entry[0] > self._least[0][0]:
                heapq.heapreplace(self._least, entry)
            yield record

    def rows(self) -> list[dict[str, Any]]:
        """Of each record key, image, findings, and its captions before and after."""
        return [self._row(record) for _, _, record in sorted(self._least, key=lambda entry: -entry[0])]

    def _row(self, record: Record) -> dict[str, Any]:
        before, after = ([asdict(caption) for caption in r.captions] for r in (self._original(record.key), record))
        found = record.metadata.get(FINDINGS, [])
        return {"key": record.key, "image": record.image, "findings": found, "before": before, "after": after}


def merged_samples(shards: Iterable[Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """The samples of all records together from those of their shards."""
    return sorted(chain.from_iterable(shards), key=lambda row: _place(row["key"]))[:NUM_SAMPLES]


def _place(key: str) -> int:
    return stable_hash("report", key)
