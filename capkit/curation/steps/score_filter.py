"""Keeps the captions that a scorer gives a high score: one of the uses of `reward=[...]` beside rewarding."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Annotated

import numpy as np
from jaxtyping import Float, UInt8

from capkit.curation.base import Records, batches
from capkit.curation.scores import no_training_references, score_records
from capkit.curation.step_bases import ReportingStep
from capkit.data.images import BadImage
from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.scorers.base import Scorer, as_scorer, require_text_scorer
from capkit.utils.ranges import FiniteFloat, PositiveInt, Range, check_ranges
from capkit.utils.tensors import default_device

UNSCORED = ("drop", "keep")
_Scored = tuple[Record, Float[np.ndarray, " N"]]


@check_ranges
class ScoreFilter(ReportingStep):
    """Records with those of their captions that a scorer rates highly; one without any left is reported and left out.

    Exactly one of three rules says which captions stay:

    - `threshold`: those with this score or a higher one.
    - `best`: the `best` ones of each record; of equal ones the first.
    - `quantile`: those with the score or a higher one that this share of all captions lies below (linear between two
      scores). It takes two passes over all records, which cannot be cut into shards.

    A scorer that compares with references is given the record's other captions. `unscored` says what becomes of
    captions without a score (NaN): a picture that cannot be read, no other caption to compare with, no word in it.
    Kept, they take none of the `best` places.

    The scores of the captions that stay are written into metadata `name`, in their order, None for NaN. `counts` has
    the captions `kept`, `dropped` for their score, `dropped_unscored` and `kept_unscored`.

    Raises UsageError for a scorer whose scores depend on what else is in the batch, or that needs token ids.
    """

    name = "score_filter"
    writes_source = ""

    def __init__(
        self,
        scorer: Scorer,
        threshold: FiniteFloat | None = None,
        best: PositiveInt | None = None,
        quantile: Annotated[float | int, Range(0, 1)] | None = None,
        unscored: str = "drop",
        name: str = "score",
        batch_size: PositiveInt = 64,
    ) -> None:
        if sum(rule is not None for rule in (threshold, best, quantile)) != 1:
            raise UsageError(
                f"score_filter: expected one of threshold, best and quantile; got {threshold=}, {best=}, {quantile=}; "
                "give for example step.score_filter.threshold=0.5"
            )
        if unscored not in UNSCORED:
            raise UsageError(f"score_filter: expected unscored=drop or unscored=keep, got {unscored!r}")
        self._scorer = as_scorer(scorer)
        require_text_scorer(self._scorer, "score_filter")
        self.scope = "record" if quantile is None else "all"
        self._threshold, self._best, self._quantile = threshold, best, quantile
        self._keeps_unscored, self._name, self._batch_size = unscored == "keep", name, batch_size
        self._read: Callable[[str], UInt8[np.ndarray, "H W 3"]] | None = None
        self.counts = dict.fromkeys(("kept", "dropped", "dropped_unscored", "kept_unscored"), 0)

    def attach_images(self, read: Callable[[str], UInt8[np.ndarray, "H W 3"]]) -> None:
        """`read` gives the picture of a record's key, or raises BadImage."""
        self._read = read

    def __call__(self, records: Records) -> Iterator[Record]:
        self._scorer.prepare(self._picture, no_training_references, default_device())
        self.counts = dict.fromkeys(self.counts, 0)
        threshold = -math.inf if self._threshold is None else float(self._threshold)
        if self._quantile is None:
            scored = self._scored(records)
        else:
            scores = [values for _, values in self._scored(records)]
            known = np.concatenate([np.empty(0), *scores])
            known = known[~np.isnan(known)]
            threshold = float(np.quantile(known, self._quantile)) if len(known) else threshold
            scored = zip(records(), scores, strict=True)
        for record, values in scored:
            yield from self._kept(record, values, threshold)

    def _scored(self, records: Records) -> Iterator[_Scored]:
        for batch in batches(records(), self._batch_size):
            yield from zip(batch, score_records(self._scorer, batch), strict=True)

    def _kept(self, record: Record, scores: Float[np.ndarray, " N"], threshold: float) -> Iterator[Record]:
        """The record with the captions that stay, or nothing."""
        unscored = np.isnan(scores)
        stays = scores >= threshold
        if self._best is not None:
            ranked = np.argsort(-scores, kind="stable")  # NaN comes last
            stays &= np.isin(np.arange(len(scores)), ranked[: self._best])
        stays |= unscored & self._keeps_unscored
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
            metadata={**record.metadata, self._name: [_plain(score) for score in scores[stays]]},
        )

    def _picture(self, key: str) -> UInt8[np.ndarray, "H W 3"] | None:
        if self._read is None:
            raise UsageError("score_filter: this scorer looks at pictures; call attach_images, or run task=curate")
        try:
            return self._read(key)
        except BadImage:
            return None


def _plain(score: float) -> float | None:
    """NaN is no JSON."""
    return None if math.isnan(score) else float(score)
