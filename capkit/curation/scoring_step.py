"""What data steps share that score captions, and keep some of them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, UInt8

from capkit.curation.base import Records, batches
from capkit.curation.scores import no_training_references, score_records
from capkit.curation.step_bases import ReportingStep
from capkit.data.images import BadImage
from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.scorers.base import Scorer, as_scorer, require_text_scorer
from capkit.utils.tensors import default_device

UNSCORED = ("drop", "keep")
Scored = tuple[Record, Float[np.ndarray, " N"]]


class ScoringStep(ReportingStep):
    """Base class of steps that keep captions by their scores.

    `unscored` says what becomes of captions without a score (NaN): a picture that cannot be read, no other caption to
    compare with, no word in it. The scores of the captions that stay are written into metadata `score_name`, in their
    order, None for NaN. `counts` has the captions `kept`, `dropped` for their score, `dropped_unscored` and
    `kept_unscored`.

    Raises UsageError for a scorer whose scores depend on what else is in the batch, or that needs token ids.
    """

    writes_source = ""

    def __init__(self, scorer: Scorer, unscored: str, score_name: str, batch_size: int) -> None:
        if unscored not in UNSCORED:
            raise UsageError(f"{self.name}: expected unscored=drop or unscored=keep, got {unscored!r}")
        self._scorer = as_scorer(scorer)
        require_text_scorer(self._scorer, self.name)
        self._keeps_unscored, self._score_name, self._batch_size = unscored == "keep", score_name, batch_size
        self._read: Callable[[str], UInt8[np.ndarray, "H W 3"]] | None = None
        self.counts = dict.fromkeys(("kept", "dropped", "dropped_unscored", "kept_unscored"), 0)

    def attach_images(self, read: Callable[[str], UInt8[np.ndarray, "H W 3"]]) -> None:
        """`read` gives the picture of a record's key, or raises BadImage."""
        self._read = read

    def scored(self, records: Records) -> Iterator[Scored]:
        """Each record with the scores of its captions."""
        self._scorer.prepare(self._picture, no_training_references, default_device())
        self.counts = dict.fromkeys(self.counts, 0)
        for batch in batches(records(), self._batch_size):
            yield from zip(batch, score_records(self._scorer, batch), strict=True)

    def kept(self, record: Record, scores: Float[np.ndarray, " N"], stays: Bool[np.ndarray, " N"]) -> Iterator[Record]:
        """The record with the captions that stay, or nothing; `stays` is False where there is no score."""
        unscored = np.isnan(scores)
        stays = stays | (unscored & self._keeps_unscored)
        for name, mask in (("kept", stays & ~unscored), ("dropped", ~stays & ~unscored)):
            self.counts[name] += int(mask.sum())
        self.counts["kept_unscored" if self._keeps_unscored else "dropped_unscored"] += int(unscored.sum())
        if not stays.any():
            found = "none has a score" if unscored.all() else f"the best score is {np.nanmax(scores):.4g}"
            reason = f"none of {len(scores)} captions stays: {found}" if len(scores) else "no caption"
            self._fail(record, reason)
            return
        yield replace(
            record,
            captions=[caption for caption, stay in zip(record.captions, stays, strict=True) if stay],
            metadata={**record.metadata, self._score_name: [_plain(score) for score in scores[stays]]},
        )

    def _picture(self, key: str) -> UInt8[np.ndarray, "H W 3"] | None:
        if self._read is None:
            raise UsageError(f"{self.name}: this scorer looks at pictures; call attach_images, or run task=curate")
        try:
            return self._read(key)
        except BadImage:
            return None


def _plain(score: float) -> float | None:
    """NaN is no JSON."""
    return None if math.isnan(score) else float(score)
