"""How well a rater's scores agree with grades that people or models gave, and what they owe to length.

P pictures; one list of captions a picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError
from capkit.metrics.bootstrap import CONFIDENCE, ImageSums, bootstrap_intervals
from capkit.metrics.correlation import kendall
from capkit.text.ptb import ptb_words
from capkit.utils import rng

_AT_ONCE = 4000  # captions of one table of all pairs


@dataclass(frozen=True)
class RatedCaptions:
    """Of one picture: captions, a rater's scores of them and the grades that they were given."""

    captions: Sequence[str]
    scores: Sequence[float]
    grades: Sequence[float]


def rating_numbers(
    pictures: Sequence[RatedCaptions], margins: Sequence[float | int] = (), is_ranking: bool = True
) -> dict[str, float]:
    """Numbers by name; NaN where nothing tells.

    - `accuracy`: of the pairs of captions of one picture with different grades, the share in which the better one has
      the higher score; an equal score is half of it. `accuracy_from_M`: of the pairs whose grades differ by M or more.
    - `kendall`: Kendall's tau b of scores and grades within a picture, the mean over pictures.
    - `kendall_all`: over all captions of all pictures, unless they are rankings. Of at most the first 4,000 captions.
    - `length_correlation`: Pearson's of scores and words; `grades_length_correlation`: of grades and words.

    Raises UsageError without captions.
    """
    sums = _sums(pictures, margins)
    numbers = {name: float(values[0]) for name, values in sums.numbers(sums.values.sum(0)[None]).items()}
    if not is_ranking:
        scores, grades = _in_a_row(_first(pictures))
        numbers["kendall_all"] = kendall(scores, grades) if len(scores) > 1 else math.nan
    return numbers


def rating_intervals(
    pictures: Sequence[RatedCaptions],
    margins: Sequence[float | int] = (),
    is_ranking: bool = True,
    confidence: float = CONFIDENCE,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Bootstrap interval over pictures of each of `rating_numbers`."""
    found = bootstrap_intervals(_sums(pictures, margins), confidence, num_resamples, seed)
    if not is_ranking:
        found["kendall_all"] = _interval_of_kendall(_first(pictures), confidence, num_resamples, seed)
    return found


def _first(pictures: Sequence[RatedCaptions]) -> list[RatedCaptions]:
    ends = np.cumsum([len(picture.captions) for picture in pictures])
    return [picture for picture, end in zip(pictures, ends, strict=True) if end <= _AT_ONCE]


def _in_a_row(pictures: Sequence[RatedCaptions]) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Scores and grades of all captions."""
    scores = np.array([score for picture in pictures for score in picture.scores], dtype=float)
    return scores, np.array([grade for picture in pictures for grade in picture.grades], dtype=float)


def _sums(pictures: Sequence[RatedCaptions], margins: Sequence[float | int]) -> ImageSums:
    if not pictures:
        raise UsageError("expected rated captions, got none")
    levels = [0.0, *map(float, margins)]
    names = ["accuracy", *(f"accuracy_from_{margin:g}" for margin in margins)]
    rows = [[*_pairs(picture, levels), *_tau(picture), *_moments(picture)] for picture in pictures]

    def numbers(sums: Float[np.ndarray, "R S"]) -> dict[str, Float[np.ndarray, " R"]]:
        pairs, rest = np.split(sums, [2 * len(levels)], axis=1)
        right, counted = pairs[:, ::2], pairs[:, 1::2]
        found = dict(zip(names, _ratio(right, counted).T, strict=True))
        found["kendall"] = _ratio(rest[:, 0], rest[:, 1])
        for name, (value, square, product) in (("", rest[:, 5:8].T), ("grades_", rest[:, 8:11].T)):
            count, words, words_square = rest[:, 2:5].T
            spread = (count * square - value**2) * (count * words_square - words**2)
            found[f"{name}length_correlation"] = _ratio(count * product - value * words, np.sqrt(spread.clip(min=0)))
        return found

    return ImageSums(np.array(rows), numbers)


def _pairs(picture: RatedCaptions, levels: Sequence[float]) -> list[float]:
    """For each level, the pairs whose grades differ by it at least (by anything for 0): rightly ordered, and all."""
    scores, grades = np.asarray(picture.scores, dtype=float), np.asarray(picture.grades, dtype=float)
    ahead, lead = grades[:, None] - grades, np.sign(scores[:, None] - scores)
    found = []
    for level in levels:
        counted = (ahead > 0) & (ahead >= level)
        found += [float(((lead + 1) / 2)[counted].sum()), float(counted.sum())]
    return found


def _tau(picture: RatedCaptions) -> list[float]:
    tau = kendall(picture.scores, picture.grades) if len(picture.captions) > 1 else math.nan
    return [0.0, 0.0] if math.isnan(tau) else [tau, 1.0]


def _moments(picture: RatedCaptions) -> list[float]:
    """Of words, scores and grades: count, sum, sum of squares; of the last two also the products with words."""
    words = np.array([len(ptb_words(text)) for text in picture.captions], dtype=float)
    found = [float(len(words)), words.sum(), (words**2).sum()]
    for values in (np.asarray(picture.scores, dtype=float), np.asarray(picture.grades, dtype=float)):
        found += [values.sum(), (values**2).sum(), (values * words).sum()]
    return found


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 1e-12)


def _interval_of_kendall(
    pictures: Sequence[RatedCaptions], confidence: float, num_resamples: int, seed: int
) -> tuple[float, float]:
    """A picture that is drawn c times counts c times in each pair: with c the draws, c' M c is the sum over pairs."""
    starts = np.cumsum([0, *(len(picture.captions) for picture in pictures)])[:-1]
    signs = [np.sign(values[:, None] - values) for values in _in_a_row(pictures)]

    def by_picture(table: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.add.reduceat(table, starts, 0), starts, 1)

    tables = [by_picture(t) for t in (signs[0] * signs[1], np.abs(signs[0]), np.abs(signs[1]))]
    random = rng.generator("bootstrap", seed)
    drawn = [random.integers(0, len(starts), len(starts)) for _ in range(num_resamples)]
    counts = np.stack([np.bincount(rows, minlength=len(starts)) for rows in drawn]).astype(float)
    agree, first, second = (((counts @ table) * counts).sum(1) for table in tables)
    taus = _ratio(agree, np.sqrt(first * second))
    known = taus[np.isfinite(taus)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
