import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.metrics.bootstrap import bootstrap_interval


def test_interval_of_a_share_agrees_with_the_normal_approximation():
    values = [1.0] * 300 + [0.0] * 700
    low, high = bootstrap_interval(values)
    spread = 1.96 * (0.3 * 0.7 / 1000) ** 0.5  # .0284
    assert low == pytest.approx(0.3 - spread, abs=0.004)
    assert high == pytest.approx(0.3 + spread, abs=0.004)


def test_equal_values_have_no_width_and_more_confidence_has_more():
    assert bootstrap_interval([0.5] * 10) == (0.5, 0.5)
    values = np.arange(50.0)
    narrow, wide = bootstrap_interval(values, 0.5), bootstrap_interval(values, 0.99)
    assert wide[0] < narrow[0] < 24.5 < narrow[1] < wide[1]


def test_the_seed_alone_decides_the_draws():
    values = np.arange(20.0)
    np.random.seed(1)
    first = bootstrap_interval(values, seed=3)
    np.random.seed(2)
    assert first == bootstrap_interval(values, seed=3)
    assert first != bootstrap_interval(values, seed=4)


def test_nine_of_ten_intervals_hold_the_true_mean():
    random = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        low, high = bootstrap_interval(random.normal(size=40), 0.9, num_resamples=200, seed=trial)
        held += low <= 0 <= high
    assert 165 <= held <= 195  # binomial(200, .9): 180, standard deviation 4.2; the bootstrap is a little too narrow


@pytest.mark.parametrize("values, confidence", [([], 0.95), ([float("nan")], 0.95), ([1.0], 1.0), ([1.0], 95.0)])
def test_no_values_or_no_confidence_is_an_error(values, confidence):
    with pytest.raises(UsageError):
        bootstrap_interval(values, confidence)
