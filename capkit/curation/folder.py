"""The folder that task=curate leaves behind. Of a split "train":

train.work.json                     what the records are made with: steps, models, prompts, data
train-00000-of-00002.jsonl          a shard's records, a manifest; complete when its report is there
train-00000-of-00002.failures.jsonl   the records left out, with the reason
train-00000-of-00002.report.json      counts and sample rows
train.jsonl, .failures.jsonl, .report.json   all shards in order, as soon as all are there
images/train/00000012.png           pictures of sources that have no image files
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image

from capkit.curation.base import Failure
from capkit.data.records import Record, write_manifest
from capkit.errors import UsageError
from capkit.run.changes import flatten
from capkit.utils.files import atomic_path, write_atomically

NUM_SAMPLES = 5


class CuratedFolder:
    """One split in the folder `out`, of which this process writes shard `shard` of `num_shards`."""

    def __init__(self, out: Path, split: str, shard: int, num_shards: int) -> None:
        self.out, self.split, self.shard, self.num_shards = out, split, shard, num_shards
        self.manifest = out / f"{split}.jsonl"

    def claim(self, work: Mapping[str, Any]) -> None:
        """Notes what the records are made with. Raises UsageError where the folder holds records of other work."""
        file, wanted = self.out / f"{self.split}.work.json", json.loads(json.dumps(work))
        if not file.exists():
            try:
                write_atomically(file, json.dumps(wanted, indent=1) + "\n")
            except OSError as error:
                raise UsageError(f"out={self.out}: {error.strerror}; give a folder that can be written") from error
        before, after = flatten(json.loads(file.read_text(encoding="utf-8"))), flatten(wanted)
        changed = [
            f"  {key}: {before.get(key, '(absent)')!r} -> {after.get(key, '(absent)')!r}"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key)
        ]
        if changed:
            raise UsageError(
                f"out={self.out} holds records that were made with something else:\n" + "\n".join(changed) + "\ngive "
                "another out=FOLDER, or delete that one; answers are kept apart from it"
            )

    def indices(self, num_records: int) -> range:
        """This shard's records: a run of neighbours, so that shards one after the other give the whole split."""
        return range(self.shard * num_records // self.num_shards, (self.shard + 1) * num_records // self.num_shards)

    def write_shard(self, records: Iterable[Record]) -> int:
        """The manifest of this shard appears when all its records are there; returns how many."""
        return write_manifest(self._file(self.shard, "jsonl"), records)

    def failures(self) -> TextIO:
        """The file of this attempt's failures, written as they come."""
        self.out.mkdir(parents=True, exist_ok=True)
        return self._file(self.shard, "failures.jsonl").open("w", encoding="utf-8", buffering=1)

    def write_report(self, report: Mapping[str, Any]) -> None:
        write_atomically(self._file(self.shard, "report.json"), json.dumps(report, indent=1) + "\n")

    def write_picture(self, index: int, pixels: np.ndarray) -> str:
        """A PNG of the record at `index`; returns its path as the manifest has it."""
        name = f"images/{self.split}/{index:08d}.png"
        path = self.out / name
        if not path.exists():
            with atomic_path(path, flush=False) as temporary:  # one of many
                Image.fromarray(pixels).save(temporary, "PNG")
        return name

    def missing_shards(self) -> list[int]:
        return [i for i in range(self.num_shards) if not self._file(i, "report.json").exists()]

    def merge(self) -> None:
        """All shards in order as one manifest, one list of failures and one report."""
        for ending in ("jsonl", "failures.jsonl"):
            texts = (self._file(i, ending).read_text(encoding="utf-8") for i in range(self.num_shards))
            write_atomically(self.out / f"{self.split}.{ending}", "".join(texts))
        reports = [json.loads(self._file(i, "report.json").read_text("utf-8")) for i in range(self.num_shards)]
        write_atomically(self.out / f"{self.split}.report.json", json.dumps(merged_report(reports), indent=1) + "\n")

    def _file(self, shard: int, ending: str) -> Path:
        return self.out / f"{self.split}-{shard:05d}-of-{self.num_shards:05d}.{ending}"


def merged_report(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts added up, samples of the first shards."""
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report["counts"])
    samples = list(chain.from_iterable(report["samples"] for report in reports))[:NUM_SAMPLES]
    return {"counts": dict(counts), "samples": samples}


class FailureLog:
    """Writes failures as they come, and counts them."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.count = 0

    def __call__(self, failure: Failure) -> None:
        self._file.write(json.dumps(asdict(failure)) + "\n")
        self.count += 1


def sampled(
    records: Iterable[Record], original: Callable[[str], Record], samples: list[dict[str, Any]]
) -> Iterator[Record]:
    """The records, the first of which leave a row in `samples`: key, captions before, captions after."""
    for record in records:
        if len(samples) < NUM_SAMPLES:
            before, after = ([asdict(c) for c in r.captions] for r in (original(record.key), record))
            samples.append({"key": record.key, "before": before, "after": after})
        yield record
