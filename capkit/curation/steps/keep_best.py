"""Keeps a share of all captions, or those above a score, by each source's own scale if wanted (Compress & Align)."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from capkit.curation.base import Records
from capkit.curation.scoring_step import Scored, ScoringStep
from capkit.data.records import Record
from capkit.errors import UsageError
from capkit.scorers.base import Scorer
from capkit.utils.files import write_json
from capkit.utils.ranges import FiniteFloat, PositiveInt, PositiveProbability, check_ranges, is_finite
from capkit.utils.text_files import parse_json, read_text

_ALL = ""  # the source of every caption, where sources are compared with each other


@check_ranges
class KeepBest(ScoringStep):
    """Records with those of their captions that score best among all; one without any left is reported and left out.

    - `share`: the best int(share x captions) of all that have a score, one at least, and others with the same score as
      the last of them. Two passes: the first finds the score, the second keeps. It writes `thresholds_file`, if one is
      given.
    - `threshold`: those with this score or a higher one.
    - `thresholds_file` alone: the scores that an earlier run with `share` wrote, of the same scorer. So shards, or
      machines, keep what one pass over everything would keep: `share` on all records or a sample of them first, then
      each shard by that file.

    With `by_source` each source (`Caption.source`) has a share and a score of its own: scores of captions of different
    origin, web pages and models, are often not comparable.

    Scores, captions without a score and `counts` are as of `score_filter`.

    Raises UsageError where nothing is kept, except by a file alone, since a shard may have nothing good; for a source
    that the file does not have, a file of another scorer, and what `score_filter` refuses.
    """

    name = "keep_best"

    def __init__(
        self,
        scorer: Scorer,
        share: PositiveProbability | None = None,
        threshold: FiniteFloat | None = None,
        thresholds_file: str | None = None,
        by_source: bool = False,
        unscored: str = "drop",
        score_name: str = "score",
        batch_size: PositiveInt = 64,
    ) -> None:
        both, neither = None not in (share, threshold), share is None and threshold is None
        if both or (neither and thresholds_file is None):
            raise UsageError(
                f"keep_best: expected one of share and threshold, or thresholds_file alone; got {share=}, "
                f"{threshold=}, {thresholds_file=}; give for example step.keep_best.share=0.1"
            )
        if threshold is not None and (thresholds_file is not None or by_source):
            raise UsageError(
                f"keep_best: one threshold={threshold} serves all captions; got {thresholds_file=}, {by_source=} "
                "beside it; leave these out, or give share"
            )
        super().__init__(scorer, unscored, score_name, batch_size)
        self.scope = "record" if share is None else "all"
        self._share, self._by_source = share, by_source
        self._file = None if thresholds_file is None else Path(thresholds_file)
        self._given: dict[str, float | None] | None = None
        if share is None:
            self._given = self._read_thresholds() if threshold is None else {_ALL: float(threshold)}
        self._settings = {
            "share": share,
            "by_source": by_source,
            "unscored": unscored,
            "score_name": score_name,
            "batch_size": batch_size,
        }

    def fingerprint_fields(self) -> dict[str, Any]:
        """With the thresholds themselves: a shard is not made by others than the shards before it."""
        return {**self._settings, "thresholds": self._given, "scorer": self._scorer.provenance()}

    def __call__(self, records: Records) -> Iterator[Record]:
        if self._given is not None:
            yield from self._above(self.scored(records), self._given)
            return
        scores = []
        by_source: dict[str, list[float]] = {}
        for record, values in self.scored(records):
            scores.append(values)
            for source, value in zip(self._sources(record), values, strict=True):
                by_source.setdefault(source, []).append(value)
        assert self._share is not None
        thresholds = {source: score_of_share(np.array(own), self._share) for source, own in sorted(by_source.items())}
        if self._file is not None:
            about = {"by_source": self._by_source, "share": self._share, "scorer": self._scorer.provenance()}
            write_json(self._file, {**about, "thresholds": thresholds})
        yield from self._above(zip(records(), scores, strict=True), thresholds)

    def _above(self, scored: Iterator[Scored], thresholds: Mapping[str, float | None]) -> Iterator[Record]:
        highest, num_captions = -math.inf, 0
        for record, values in scored:
            lowest = np.array([self._threshold(source, thresholds) for source in self._sources(record)])
            num_captions += len(values)
            highest = max([highest, *values[~np.isnan(values)].tolist()])
            yield from self.kept(record, values, values >= lowest if len(values) else np.zeros(0, dtype=bool))
        is_a_part = self._file is not None and self._share is None  # of what the file was made of
        if num_captions and not is_a_part and not self.counts["kept"] + self.counts["kept_unscored"]:
            found = "none has a score" if highest == -math.inf else f"the best score is {highest:.4g}"
            raise UsageError(
                f"keep_best: expected captions to keep, got none of {num_captions:,}: {found}; lower "
                "step.keep_best.threshold, or see why pictures cannot be read (failures.jsonl)"
            )

    def _threshold(self, source: str, thresholds: Mapping[str, float | None]) -> float:
        if source not in thresholds:
            raise UsageError(
                f"keep_best: {self._file} has no score for captions of source {source!r}, only for "
                f"{', '.join(map(repr, thresholds))}; make it on data with every source, or without by_source"
            )
        lowest = thresholds[source]
        return math.inf if lowest is None else lowest

    def _sources(self, record: Record) -> list[str]:
        return [caption.source if self._by_source else _ALL for caption in record.captions]

    def _read_thresholds(self) -> dict[str, float | None]:
        content = parse_json(read_text(str(self._file), "keep_best.thresholds_file"), str(self._file))
        is_written = isinstance(content, dict) and content.keys() >= {"thresholds", "by_source", "scorer"}
        thresholds = content["thresholds"] if is_written else None
        if not isinstance(thresholds, dict) or not all(v is None or is_finite(v) for v in thresholds.values()):
            raise UsageError(
                f"keep_best.thresholds_file: expected what a run with share wrote, got {self._file}, which is not; run "
                "step.keep_best.share=... with this thresholds_file first"
            )
        ours = json.loads(json.dumps(self._scorer.provenance()))
        for name, given, own in (
            ("by_source", content["by_source"], self._by_source),
            ("scorer", content["scorer"], ours),
        ):
            if given != own:
                raise UsageError(
                    f"keep_best.thresholds_file: {self._file} was made with {name}={given}, got {own}; scores of "
                    "another scorer or cut are not comparable: give the same, or make the file anew"
                )
        return {str(source): value for source, value in thresholds.items()}


def score_of_share(scores: Float[np.ndarray, " N"], share: float) -> float | None:
    """The int(share x N)th best score, the best at least; None where none is known."""
    known = np.sort(scores[~np.isnan(scores)])[::-1]
    return float(known[max(1, int(share * len(known) + 1e-9)) - 1]) if len(known) else None
