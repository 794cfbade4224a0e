"""Bootstrap confidence intervals of a mean over images."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.utils import rng


def bootstrap_interval(
    per_item_values: Sequence[float] | np.ndarray | Float[Tensor, " n"],
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean, resampling items with replacement (Efron 1979).

    Give one value per image, not per caption: captions of the same image are not independent. The draws depend only on
    `seed`. Raises UsageError for no values, values that are not finite, or a confidence outside (0, 1).
    """
    values = np.asarray(per_item_values, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise UsageError(f"bootstrap_interval: expected one or more finite values; got {len(values)} values")
    if not 0 < confidence < 1:
        raise UsageError(f"expected confidence between 0 and 1, such as 0.95; got {confidence}")
    random = rng.generator("bootstrap", seed)
    means = np.array([values[random.integers(0, len(values), len(values))].mean() for _ in range(num_resamples)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
