"""Bootstrap confidence intervals over images: of a mean, and of any number that is a function of sums over images.

N images, S sums, R resamples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError
from capkit.utils.seeds import generator

CONFIDENCE = 0.95  # of intervals, where nobody asks for another


@runtime_checkable
class ArrayLike(Protocol):
    """What numpy makes an array of, such as a tensor of torch."""

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray: ...


@dataclass(frozen=True)
class ImageSums:
    """Numbers of a set of images as functions of sums over them: means, ratios of counts, BLEU.

    `values` has each image's terms; `numbers` maps rows of sums to numbers by name, NaN where there is none.
    """

    values: Float[np.ndarray, "N S"]
    numbers: Callable[[Float[np.ndarray, "R S"]], dict[str, Float[np.ndarray, " R"]]]


def image_means(scores: Mapping[str, Sequence[float] | np.ndarray]) -> ImageSums:
    """Means over the images that have a score, which is NaN where they have none."""
    table = np.array([np.asarray(values, dtype=np.float64) for values in scores.values()]).T  # (N names)
    scored = np.isfinite(table)

    def numbers(sums: Float[np.ndarray, "R S"]) -> dict[str, Float[np.ndarray, " R"]]:
        totals, counts = np.split(sums, 2, axis=1)
        means = np.divide(totals, counts, out=np.full(totals.shape, np.nan), where=counts > 0)
        return dict(zip(scores, means.T, strict=True))

    return ImageSums(np.concatenate([np.where(scored, table, 0.0), scored], axis=1), numbers)


def bootstrap_intervals(
    images: ImageSums, confidence: float = CONFIDENCE, num_resamples: int = 2000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile interval of each number, resampling images with replacement (Efron 1979).

    The draws depend only on `seed` and the number of images: two captioners on one test set are resampled alike. A
    resample without a number (no image of it has a score) is left out; a number that no resample has gives NaN.
    Raises UsageError for no images or a confidence outside (0, 1).
    """
    found = _resampled(images, confidence, num_resamples, seed)
    return {name: _percentiles(numbers, confidence) for name, numbers in found.items()}


def paired_intervals(
    first: ImageSums, other: ImageSums, confidence: float = CONFIDENCE, num_resamples: int = 2000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile interval of each number of `other` minus that of `first`, of the same images in the same order.

    Both are resampled alike, so that what makes an image easy for both cancels (Efron and Tibshirani 1993, section
    10.3). Numbers that only one has are left out. Raises UsageError for different numbers of images.
    """
    if len(first.values) != len(other.values):
        raise UsageError(
            f"paired_intervals: expected the same images, got {len(first.values)} and {len(other.values)} of them"
        )
    ours, theirs = (_resampled(images, confidence, num_resamples, seed) for images in (first, other))
    return {name: _percentiles(theirs[name] - ours[name], confidence) for name in ours if name in theirs}


def _resampled(
    images: ImageSums, confidence: float, num_resamples: int, seed: int
) -> dict[str, Float[np.ndarray, " R"]]:
    """Each number in each resample; the draws depend only on `seed` and the number of images."""
    values = images.values
    if not len(values):
        raise UsageError("bootstrap_intervals: expected one or more images, got none")
    if not 0 < confidence < 1:
        raise UsageError(f"expected confidence between 0 and 1, such as 0.95; got {confidence}")
    random = generator("bootstrap", seed)
    drawn = (random.integers(0, len(values), len(values)) for _ in range(num_resamples))
    return images.numbers(np.stack([values[rows].sum(0) for rows in drawn]))


def bootstrap_interval(
    per_item_values: Sequence[float] | ArrayLike,
    confidence: float = CONFIDENCE,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean of items, as `bootstrap_intervals`.

    Give one value per image, not per caption: captions of the same image are not independent. Raises UsageError for no
    values, values that are not finite, or a confidence outside (0, 1).
    """
    values = np.asarray(per_item_values, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise UsageError(f"bootstrap_interval: expected one or more finite values; got {len(values)} values")
    return bootstrap_intervals(image_means({"mean": values}), confidence, num_resamples, seed)["mean"]


def _percentiles(numbers: Float[np.ndarray, " R"], confidence: float) -> tuple[float, float]:
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
