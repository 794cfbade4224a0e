"""Pearson's, Spearman's and Kendall's correlation of two lists of numbers."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError


def pearson(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Covariance divided by the product of standard deviations; NaN if either list is constant."""
    first, second = (values - values.mean() for values in _pair(x, y))
    norm = np.sqrt((first * first).sum() * (second * second).sum())
    return float((first * second).sum() / norm) if norm else float("nan")


def spearman(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Pearson's correlation of ranks; ties share their mean rank."""
    return pearson(*(mean_ranks(values) for values in _pair(x, y)))


def kendall(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Kendall's tau b: of all pairs, those in the same order less those in the other one, over sqrt(untied x untied).

    NaN if either list is constant.
    """
    first, second = (np.sign(values[:, None] - values) for values in _pair(x, y))
    norm = np.sqrt((first != 0).sum() * (second != 0).sum())
    return float((first * second).sum() / norm) if norm else float("nan")


def mean_ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Ranks from 1, ascending; ties get their mean rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[group]


def _pair(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise UsageError(f"correlation: expected two lists of equal length, 2 or more; got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UsageError("correlation: expected finite numbers; got NaN or infinity")
    return x, y
