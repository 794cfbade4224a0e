"""Keeps the captions that a scorer gives a high score: one of the uses of `reward=[...]` beside rewarding."""

import math
from collections.abc import Iterator
from typing import Annotated

import numpy as np

from capkit.curation.base import Records
from capkit.curation.scoring_step import ScoringStep
from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.scorers.base import Scorer
from capkit.utils.ranges import FiniteFloat, PositiveInt, Range, check_ranges


@check_ranges
class ScoreFilter(ScoringStep):
    """Records with those of their captions that a scorer rates highly; one without any left is reported and left out.

    Exactly one of three rules says which captions stay:

    - `threshold`: those with this score or a higher one.
    - `best`: the `best` ones of each record; of equal ones the first.
    - `quantile`: those with the score or a higher one that this share of all captions lies below (linear between two
      scores). It takes two passes over all records, which cannot be cut into shards; `keep_best` can.

    A scorer that compares with references is given the record's other captions. `unscored` says what becomes of
    captions without a score (NaN): a picture that cannot be read, no other caption to compare with, no word in it.
    Kept, they take none of the `best` places.

    The scores of the captions that stay are written into metadata `name`, in their order, None for NaN. `counts` has
    the captions `kept`, `dropped` for their score, `dropped_unscored` and `kept_unscored`.

    Raises UsageError for a scorer whose scores depend on what else is in the batch, or that needs token ids.
    """

    name = "score_filter"

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
        super().__init__(scorer, unscored, name, batch_size)
        self.scope = "record" if quantile is None else "all"
        self._threshold, self._best, self._quantile = threshold, best, quantile

    def __call__(self, records: Records) -> Iterator[Record]:
        threshold = -math.inf if self._threshold is None else float(self._threshold)
        if self._quantile is None:
            scored = self.scored(records)
        else:
            scores = [values for _, values in self.scored(records)]
            known = np.concatenate([np.empty(0), *scores])
            known = known[~np.isnan(known)]
            threshold = float(np.quantile(known, self._quantile)) if len(known) else threshold
            scored = zip(records(), scores, strict=True)
        for record, values in scored:
            stays = values >= threshold
            if self._best is not None:
                ranked = np.argsort(-values, kind="stable")  # NaN comes last
                stays &= np.isin(np.arange(len(values)), ranked[: self._best])
            yield from self.kept(record, values, stays)
