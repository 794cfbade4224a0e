"""What metrics share whose numbers come from the answers of models: failures, missing numbers, intervals, ranks.

N pictures, S sums, R resamples.
"""

import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from capkit.distributed.collectives import gather_objects, rank, world_size
from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.metrics.bootstrap import ImageSums
from capkit.metrics.text_metric import TextMetric
from capkit.text.checked import ScoreWarning
from capkit.utils.files import write_atomically
from capkit.utils.ranges import Probability, check_ranges
from capkit.utils.rng import stable_hash

Columns = tuple[list[str], list[list[str]], list[dict[str, Any]]]  # predictions, references, metadata

MAX_FAILED = 0.05
_NUM_NAMED = 3


@dataclass(frozen=True)
class Judged:
    """What became of one picture's caption, as plain data.

    `values` are its terms of the sums that the numbers follow from, by name; a picture without a name adds 0. Of
    `num_asked` judgements `num_failed` are not usable (no answer, or none that can be read). `detail` goes into files.
    """

    values: Mapping[str, float]
    num_asked: int = 0
    num_failed: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """What a page shows of a picture: a score, higher is better, and what was judged, each right, wrong or open."""

    score: float
    marks: Sequence[tuple[str, Literal["right", "wrong", "open"]]]


@check_ranges
class JudgedMetric(TextMetric, ABC):
    """A metric made of judgements of models on each picture's caption, from which its numbers follow as sums.

    Beside the numbers stand `NAME_asked`, the judgements that were asked for, kept ones too, and `NAME_failed`, those
    that failed. Where more than `max_failed` of them did, no number is given, and a ScoreWarning says so.

    Ranks share the pictures. A model's answers are kept by its `Asker`, so that a run which is started again asks what
    is left; within a process a picture is judged once, whatever is made of it.
    """

    needs_references: bool = False
    missing: str = "empty"  # pictures without a caption count as with an empty one; "ignore": they do not count

    def __init__(self, name: str, max_failed: Probability = MAX_FAILED) -> None:
        super().__init__()
        self.name, self.max_failed = name, max_failed
        self._known: dict[int, Judged] = {}
        self._absent: set[str] = set()

    @property
    def askers(self) -> Mapping[str, Asker]:
        """The askers of its models, by a name each, which a task gives accounts of the run's money and failures."""
        return {}

    @abstractmethod
    def judge(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> list[Judged]:
        """Of each picture, in order. All questions of all pictures are open at once: no barrier between pictures."""

    @abstractmethod
    def numbers(self, sums: Mapping[str, Float[np.ndarray, " R"]]) -> dict[str, Float[np.ndarray, " R"]]:
        """The numbers, by name, from sums of `Judged.values` over pictures; NaN where there is none.

        `sums["pictures"]` is the number of pictures.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the numbers have to be quoted with, as plain data: models, prompts, forms, orders, hashes."""

    def complete(self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]) -> Columns:
        """The pictures that count, such as those without a caption too; none twice. Raises UsageError for strangers."""
        return predictions, references, metadata

    def shown(self, found: Judged) -> Shown | None:
        """What a page shows of a picture; None for one without a score, or a metric that has nothing to show."""
        return None

    def with_empty(
        self,
        absent: Sequence[str],
        predictions: list[str],
        references: list[list[str]],
        metadata: list[dict[str, Any]],
    ) -> Columns:
        """For `complete`: with the pictures that have no caption, as `missing` says. A ScoreWarning names them."""
        if self.missing == "ignore":
            return predictions, references, metadata
        if set(absent) - self._absent:
            self._absent |= set(absent)
            some = ", ".join(absent[:_NUM_NAMED]) + (" ..." if len(absent) > _NUM_NAMED else "")
            warnings.warn(
                f"{self.name}: {len(absent)} pictures with questions have no caption ({some}) and count as with an "
                f"empty one; metric.{self.name}.missing=ignore leaves them out",
                ScoreWarning,
                stacklevel=2,
            )
        more: list[dict[str, Any]] = [{"key": key} for key in absent]
        return predictions + [""] * len(more), references + [[] for _ in more], metadata + more

    def provenance(self) -> dict[str, Any]:
        return {**self.describe(), "max_failed": self.max_failed}

    def judged(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> list[Judged]:
        """`judge` of each picture, from memory where it was judged before. `metadata` must have "key"."""
        rows = list(zip(predictions, references, metadata, strict=True))
        if not all("key" in row for row in metadata):
            raise UsageError(f"metric {self.name} knows pictures by their keys: expected 'key' in each metadata dict")
        places = [_row_hash(*row) for row in rows]
        new = {place: row for place, row in zip(places, rows, strict=True) if place not in self._known}
        if new:
            columns = [list(column) for column in zip(*new.values(), strict=True)]
            self._known |= dict(zip(new, self.judge(*columns), strict=True))
        return [self._known[place] for place in places]

    def judge_shares(self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]) -> None:
        """Judge one share of the pictures on each rank, so that all know all. Every rank calls it with all pictures."""
        columns = self.complete(predictions, references, metadata)
        share = [column[rank() :: world_size()] for column in columns]
        found = self.judged(*share)  # type: ignore[arg-type]
        places = (_row_hash(*row) for row in zip(*share, strict=True))
        for known in gather_objects(dict(zip(places, found, strict=True))):
            self._known |= known

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        judged = self.judged(*self.complete(predictions, references, metadata))
        asked, failed = _counts(judged)
        counts = {f"{self.name}_asked": float(asked), f"{self.name}_failed": float(failed)}
        if not self._is_missing(judged):
            sums = self._sums(judged)
            return {name: float(value[0]) for name, value in sums.numbers(sums.values.sum(0)[None]).items()} | counts
        warnings.warn(
            f"{self.name} is missing: {failed} of {asked} judgements failed, more than max_failed={self.max_failed:g} "
            f"of them; see why in {self.name}.jsonl, choose another model or prompt, or raise metric.{self.name}"
            ".max_failed",
            ScoreWarning,
            stacklevel=2,
        )
        return counts

    def image_sums(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> ImageSums:
        """Without numbers where they are missing."""
        return self._sums(self.judged(*self.complete(predictions, references, metadata)))

    def write(self, folder: Path, rows: Columns) -> list[Path]:
        """Write what became of each picture to `NAME.jsonl`; a metric may write its program's files beside it."""
        predictions, references, metadata = self.complete(*rows)
        lines = [
            {
                "key": str(row["key"]), "caption": caption, "asked": found.num_asked, "failed": found.num_failed,
                "values": dict(found.values), **found.detail,
            }
            for caption, row, found in zip(
                predictions, metadata, self.judged(predictions, references, metadata), strict=True
            )
        ]  # fmt: skip
        path = folder / f"{self.name}.jsonl"
        write_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        return [path]

    def _is_missing(self, judged: Sequence[Judged]) -> bool:
        asked, failed = _counts(judged)
        return failed > self.max_failed * asked

    def _sums(self, judged: Sequence[Judged]) -> ImageSums:
        names = ["pictures", *dict.fromkeys(name for found in judged for name in found.values)]
        values = np.array([[1.0, *(found.values.get(name, 0.0) for name in names[1:])] for found in judged])
        is_missing = self._is_missing(judged)

        def numbers(sums: Float[np.ndarray, "R S"]) -> dict[str, Float[np.ndarray, " R"]]:
            return {} if is_missing else self.numbers(dict(zip(names, sums.T, strict=True)))

        return ImageSums(values, numbers)


def ratio(above: Float[np.ndarray, " R"], below: Float[np.ndarray, " R"]) -> Float[np.ndarray, " R"]:
    """Their quotient, NaN where there is nothing to divide by."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _counts(judged: Sequence[Judged]) -> tuple[int, int]:
    return sum(found.num_asked for found in judged), sum(found.num_failed for found in judged)


def _row_hash(caption: str, references: Sequence[str], metadata: Mapping[str, Any]) -> int:
    return stable_hash("judged", metadata["key"], caption, *references, "captions", *metadata.get("captions", ()))
