"""The output folder of task=curate. For a split "train":

train.work.json                     what the records are made with: steps, models, prompts, data
train-00000-of-00002.jsonl          manifest of a shard's records; complete once its report exists
train-00000-of-00002.failures.jsonl   dropped records, with the reason
train-00000-of-00002.report.json      counts, models and sample rows
train.jsonl, .failures.jsonl, .report.json   all shards in order, written once all are complete
report.html                         a page of all complete splits (capkit/reports/curated.py)
images/train/00000012.png           images of sources without image files
"""

import json
import os
import re
import shutil
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image

from capkit.curation.base import Failure
from capkit.curation.samples import merged_samples
from capkit.data.files import FileSource
from capkit.data.images import BadImage
from capkit.data.records import Record, write_manifest
from capkit.data.sources.base import DataSource
from capkit.errors import UsageError
from capkit.run.changes import changed_keys, flatten
from capkit.utils.files import atomic_path, write_json
from capkit.utils.rng import stable_hash

_REPORT = ".report.json"


def own_shard(shard: int | None, num_shards: int | None) -> tuple[int, int]:
    """The shard given; else this process's rank under torchrun or srun; else the only shard."""
    if (shard is None) != (num_shards is None):
        raise UsageError(f"expected both shard and num_shards, or neither; got {shard=}, {num_shards=}")
    if shard is None or num_shards is None:
        pairs = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))
        found = next((pair for pair in pairs if all(name in os.environ for name in pair)), None)
        shard, num_shards = (int(os.environ[name]) for name in found) if found else (0, 1)
    if not 0 <= shard < num_shards:
        raise UsageError(f"expected shard from 0 to num_shards - 1; got {shard=}, {num_shards=}")
    return shard, num_shards


class CuratedFolder:
    """One split in the folder `out`, to which this process writes shard `shard` of `num_shards`."""

    def __init__(self, out: Path, split: str, shard: int, num_shards: int) -> None:
        self.out, self.split, self.shard, self.num_shards = out, split, shard, num_shards
        self.manifest = out / f"{split}.jsonl"

    def claim(self, work: Mapping[str, Any]) -> None:
        """Record what the records are made with. Raises UsageError if the folder holds records made otherwise."""
        file, wanted = self.out / f"{self.split}.work.json", json.loads(json.dumps(work))
        if not file.exists():
            try:
                write_json(file, wanted)
            except OSError as error:
                raise UsageError(f"out={self.out}: {error.strerror}; give a folder that can be written") from error
        changes = changed_keys(flatten(json.loads(file.read_text(encoding="utf-8"))), flatten(wanted))
        if changes:
            raise UsageError(
                f"out={self.out} holds records that were made with other settings:\n"
                + "\n".join(f"  {change}" for change in changes.values())
                + "\ngive another out=FOLDER, or delete this one; models' answers are cached elsewhere and stay"
            )

    def indices(self, num_records: int, starts: Sequence[int] | None = None) -> range:
        """This shard's records: consecutive ones, so that the shards in order give the whole split.

        `starts` are the first records of groups that must stay whole: a cut within one moves to its end.
        """
        cuts = [shard * num_records // self.num_shards for shard in (self.shard, self.shard + 1)]
        if starts is not None:
            ends = [*starts, num_records]
            cuts = [ends[bisect_left(ends, cut)] for cut in cuts]
        return range(*cuts)

    def write_shard(self, records: Iterable[Record]) -> int:
        """Write this shard's manifest, which appears when complete; returns the number of records."""
        return write_manifest(self._file(self.shard, "jsonl"), records)

    def failures(self) -> TextIO:
        """Open the file of this attempt's failures, which are written as they occur."""
        self.out.mkdir(parents=True, exist_ok=True)
        return self._file(self.shard, "failures.jsonl").open("w+", encoding="utf-8", buffering=1)

    def write_report(self, report: Mapping[str, Any]) -> None:
        write_json(self._file(self.shard, "report.json"), report)

    def with_pictures(
        self,
        records: Iterable[Record],
        source: DataSource,
        places: Mapping[str, int],
        failures: Callable[[Failure], None],
        has_pictures: bool = True,
    ) -> Iterator[Record]:
        """Records with the full path of their image file; images from other sources are written beside the manifest.

        `places` are the records' indices by key. A record without a usable image of that kind is reported and left out.
        Records of texts alone, without pictures, stay as they are.
        """
        if not has_pictures:
            yield from records
            return
        for record in records:
            if isinstance(source, FileSource) and record.image is not None:
                yield replace(record, image=source.files.absolute(record.image))
                continue
            index = places[record.key]
            try:
                yield replace(record, image=self.write_picture(index, source.image(index)))
            except BadImage as problem:
                failures(Failure(record.key, "curate", f"picture: {problem}"))

    def write_picture(self, index: int, pixels: np.ndarray) -> str:
        """Write the image of the record at `index` as PNG; returns its path as in the manifest."""
        name = f"images/{self.split}/{index:08d}.png"
        path = self.out / name
        if not path.exists():
            with atomic_path(path, flush=False) as temporary:  # one of many
                Image.fromarray(pixels).save(temporary, "PNG")
        return name

    def shard_file(self, ending: str) -> Path:
        """A file of this shard's own."""
        return self._file(self.shard, ending)

    def missing_shards(self) -> list[int]:
        return [i for i in range(self.num_shards) if not self._file(i, "report.json").exists()]

    def merge(self) -> dict[str, Any]:
        """Merge all shards, in order, into one manifest, one list of failures and one report, which is returned."""
        for ending in ("jsonl", "failures.jsonl"):
            with atomic_path(self.out / f"{self.split}.{ending}") as temporary, temporary.open("wb") as whole:
                for i in range(self.num_shards):
                    with self._file(i, ending).open("rb") as part:
                        shutil.copyfileobj(part, whole)
        reports = [json.loads(self._file(i, "report.json").read_text("utf-8")) for i in range(self.num_shards)]
        merged = merged_report(reports)
        write_json(self.out / f"{self.split}.report.json", merged)
        return merged

    def _file(self, shard: int, ending: str) -> Path:
        return self.out / f"{self.split}-{shard:05d}-of-{self.num_shards:05d}.{ending}"


def merged_splits(out: Path) -> Iterator[tuple[str, dict[str, Any], Iterator[dict[str, Any]]]]:
    """Name, report and failures of each split in a folder of which all shards are merged."""
    for file in sorted(out.glob(f"*{_REPORT}")):
        name = file.name.removesuffix(_REPORT)
        if not re.search(r"-\d{5}-of-\d{5}$", name):
            yield name, json.loads(file.read_text(encoding="utf-8")), _rows(out / f"{name}.failures.jsonl")


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def merged_report(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up counts; the samples are those of all records together."""
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report["counts"])
    samples = merged_samples(report["samples"] for report in reports)
    return {"counts": dict(counts), "models": reports[0].get("models", {}), "samples": samples}


class FailureLog:
    """Writes failures as they occur, and counts them. A step that is iterated twice reports each failure twice.

    A record may fail at one step for several reasons: each is listed.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._seen: set[int] = set()
        self.count = 0

    def rewrite(self, place_of: Callable[[str, str], tuple[int, int]]) -> None:
        """Bring the failures into the order of `place_of(key, step)`.

        Steps run ahead of each other, so that the order in which failures occur depends on batches and shards.
        """
        self._file.seek(0)
        rows = [json.loads(line) for line in self._file]
        rows.sort(key=lambda row: (*place_of(row["key"], row["step"]), row["reason"]))
        self._file.seek(0)
        self._file.truncate()
        self._file.writelines(json.dumps(row) + "\n" for row in rows)

    def __call__(self, failure: Failure) -> None:
        if (place := stable_hash(failure.step, failure.key, failure.reason)) in self._seen:
            return
        self._seen.add(place)
        self._file.write(json.dumps(asdict(failure)) + "\n")
        self.count += 1
