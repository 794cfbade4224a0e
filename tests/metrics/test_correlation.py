import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.metrics.correlation import kendall, mean_ranks, pearson, spearman


def test_pearson_by_hand():
    # x - 2 = (-1, 0, 1), y - 3 = (-2, 0.5, 1.5): 3.5 / sqrt(2 * 6.5)
    assert pearson([1.0, 2.0, 3.0], [1.0, 3.5, 4.5]) == pytest.approx(3.5 / 13**0.5)


def test_spearman_by_hand_with_a_tie():
    assert mean_ranks(np.array([10.0, 30, 20, 30])).tolist() == [1, 3.5, 2, 3.5]
    # ranks (1, 3.5, 2, 3.5) and (1, 2, 3, 4), less 2.5: (-1.5, 1, -.5, 1) . (-1.5, -.5, .5, 1.5) = 3; norms 4.5 and 5
    assert spearman(np.array([10, 30, 20, 30]), np.array([0, 1, 7, 9])) == pytest.approx(3 / (4.5 * 5) ** 0.5)


@pytest.mark.parametrize("size", [2, 3, 50])
def test_equal_numpys_coefficient_and_stay_under_shift_and_scale(size):
    random = np.random.default_rng(size)
    x, y = random.normal(size=(2, size))
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert pearson(3 * x + 7, y) == pytest.approx(pearson(x, y))
    assert spearman(np.exp(x), y) == pytest.approx(spearman(x, y))
    assert pearson(x, -x) == pytest.approx(-1)


def test_a_constant_list_has_no_correlation_and_wrong_lists_are_refused():
    assert np.isnan(pearson(np.ones(3), np.arange(3))) and np.isnan(spearman(np.arange(2), np.ones(2)))
    for wrong in (([1.0], [1.0]), ([1.0, 2.0], [1.0, 2.0, 3.0]), ([1.0, float("nan")], [1.0, 2.0])):
        with pytest.raises(UsageError, match="correlation: expected"):
            pearson(*wrong)


def test_kendall_by_hand_with_a_tie():
    """Of six pairs of y (1, 2, 3, 4), x (1, 4, 2, 4) orders four alike and one the other way, and ties one."""
    assert kendall([1.0, 4.0, 2.0, 4.0], [1.0, 2.0, 3.0, 4.0]) == pytest.approx((4 - 1) / (5 * 6) ** 0.5)
    assert kendall(np.arange(3), -np.arange(3)) == pytest.approx(-1) and np.isnan(kendall(np.ones(2), np.arange(2)))
