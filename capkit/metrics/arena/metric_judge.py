"""Any metric as the judge of two captions: the one with the better number wins.

P pairs, N pictures.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError, did_you_mean
from capkit.judges.pairwise import Judgement, Pair
from capkit.metrics.base import Resampled, TextScore
from capkit.utils.ranges import NonNegativeFloat, check_ranges


@check_ranges
class MetricJudge:
    """Compares a number of a metric, that of each caption alone, and gives a tie where they differ by less.

    A scorer is a metric by `ScorerMetric`. CIDEr counts document frequencies in the references of all
    pictures that have a pair.

    Args:
        metric: A metric whose numbers follow from sums over images (`Resampled`).
        number: One of its numbers; None: its only one.
        tie_below: Difference below which it is a tie; equal numbers always are one.
    """

    judges_together = True
    """Whether a verdict may depend on which other pairs there are: ranks must not share them."""

    def __init__(self, metric: TextScore, number: str | None = None, tie_below: NonNegativeFloat = 0.0) -> None:
        self._metric = require_numbers_of_captions(metric)
        self._number, self._tie_below = number, tie_below

    def about(self) -> dict[str, Any]:
        quoted = self._metric.provenance() if hasattr(self._metric, "provenance") else {}
        return {
            "judge": type(self._metric).__name__,
            "number": self._number,
            "tie_below": self._tie_below,
            "metric": quoted,
        }

    def check(self, pairs: Sequence[Pair]) -> None:
        require_references(self._metric, pairs)

    def judge(self, pairs: Sequence[Pair]) -> list[Judgement]:
        self.check(pairs)
        numbers = numbers_of_captions(self._metric, pairs)
        return judgements(numbers, self._name(numbers), self._tie_below, is_better_high(self._metric))

    def _name(self, numbers: dict[str, Float[np.ndarray, "P 2"]]) -> str:
        if self._number is None and len(numbers) == 1:
            return next(iter(numbers))
        if self._number not in numbers:
            fix = ", ".join(numbers) if self._number is None else did_you_mean(self._number, numbers)
            raise UsageError(f"number={self._number}: expected a number of {type(self._metric).__name__}; {fix}")
        return self._number


def require_numbers_of_captions(metric: Any) -> Resampled:
    """The metric itself. Raises UsageError for one that has no number for each caption."""
    if not isinstance(metric, Resampled):
        raise UsageError(
            f"expected a metric with a number for each caption, got {type(metric).__name__}, which compares the "
            "captions of a whole set; choose another one, such as cider"
        )
    return metric


def require_references(metric: Any, pairs: Sequence[Pair]) -> None:
    """Raises UsageError for pairs without references that the metric needs."""
    if getattr(metric, "needs_references", True) and (bare := [pair.key for pair in pairs if not pair.references]):
        raise UsageError(
            f"{type(metric).__name__} compares captions with references, got none for {len(bare)} of {len(pairs)} "
            f"pairs, such as {bare[0]}; give references=FILE"
        )


def is_better_high(metric: Any) -> bool:
    """Whether the better caption has the higher number."""
    return getattr(metric, "higher_is_better", True) is not False


def numbers_of_captions(metric: Resampled, pairs: Sequence[Pair]) -> dict[str, Float[np.ndarray, "P 2"]]:
    """Each number of the metric for the captions a and b of each pair.

    It is what the metric gives the caption as one of its picture's, all pictures once: each pass scores another caption
    of each. A picture without another one has its first caption scored again.
    """
    pictures: dict[str, tuple[Pair, dict[str, int]]] = {}
    for pair in pairs:
        _, texts = pictures.setdefault(_picture_of(pair), (pair, {}))
        for text in (pair.a, pair.b):
            texts.setdefault(text, len(texts))
    place = {name: number for number, name in enumerate(pictures)}
    passes = [
        [(list(texts)[turn if turn < len(texts) else 0], pair) for pair, texts in pictures.values()]
        for turn in range(max(len(texts) for _, texts in pictures.values()))
    ]
    found = [_numbers(metric, rows) for rows in passes]
    at = np.array([[(pictures[_picture_of(pair)][1][text], place[_picture_of(pair)]) for text in (pair.a, pair.b)]
                   for pair in pairs])  # fmt: skip
    return {name: np.stack([own[name] for own in found])[at[..., 0], at[..., 1]] for name in found[0]}


def _picture_of(pair: Pair) -> str:
    return str(pair.metadata.get("key", pair.key))


def _numbers(metric: Resampled, rows: Sequence[tuple[str, Pair]]) -> dict[str, Float[np.ndarray, " N"]]:
    """Each number for one caption of each picture."""
    metadata = [{"key": pair.key, **pair.metadata, **_picture(pair)} for _, pair in rows]
    images = metric.image_sums([text for text, _ in rows], [list(pair.references) for _, pair in rows], metadata)
    return images.numbers(images.values)


def judgements(
    numbers: dict[str, Float[np.ndarray, "P 2"]], name: str, tie_below: float = 0.0, high: bool = True
) -> list[Judgement]:
    """Verdicts by one of the numbers; none where a caption has no number."""
    return [_judgement(a, b, name, tie_below, high) for a, b in numbers[name].tolist()]


def _judgement(a: float, b: float, name: str, tie_below: float, high: bool) -> Judgement:
    reason = f"{name} {a:.4f} against {b:.4f}"
    if np.isnan(a) or np.isnan(b):
        return Judgement(None, f"{reason}: a caption cannot be scored")
    if a == b or abs(a - b) < tie_below:
        return Judgement("tie", reason)
    return Judgement("a" if (a > b) == high else "b", reason)


def _picture(pair: Pair) -> dict[str, Any]:
    picture = pair.picture
    return {} if picture is None else {"image": lambda: picture().pixels}
