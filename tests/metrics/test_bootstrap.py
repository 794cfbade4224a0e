import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.metrics.bootstrap import (
    ImageSums,
    bootstrap_interval,
    bootstrap_intervals,
    image_means,
    paired_intervals,
)
from capkit.utils.rng import generator


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


def test_sums_over_images_give_ratios_their_own_interval():
    """Right answers of those given: 1 of 1, 1 of 3, 0 of 0. The mean of shares would be another number."""
    counts = np.array([[1.0, 1.0], [1.0, 3.0], [0.0, 0.0]])

    def share(sums):
        return {"share": np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)}

    images = ImageSums(counts, share)
    assert images.numbers(counts.sum(0, keepdims=True))["share"] == [0.5]
    low, high = bootstrap_intervals(images)["share"]
    assert (low, high) == (pytest.approx(1 / 3), 1.0)  # resamples of the third image alone have no share


def test_images_without_a_score_do_not_count():
    images = image_means({"score": [1.0, float("nan"), 0.0, 1.0], "none": [float("nan")] * 4})
    found = images.numbers(images.values.sum(0, keepdims=True))
    assert found["score"] == [pytest.approx(2 / 3)] and np.isnan(found["none"]).all()
    intervals = bootstrap_intervals(images)
    assert intervals["score"] == (0.0, 1.0) and np.isnan(intervals["none"]).all()


def test_captioners_are_resampled_alike_on_the_same_images():
    """The second is better by .1 on every image: so are both ends of its interval."""
    scores = np.random.default_rng(0).random(30)
    first, second = (bootstrap_intervals(image_means({"s": values}))["s"] for values in (scores, scores + 0.1))
    assert second == pytest.approx((first[0] + 0.1, first[1] + 0.1))


def test_a_mean_over_images_is_resampled_as_before():
    values = np.random.default_rng(1).random(25)
    random = generator("bootstrap", 5)
    means = [values[random.integers(0, 25, 25)].mean() for _ in range(2000)]
    assert bootstrap_interval(values, 0.9, seed=5) == pytest.approx(tuple(np.quantile(means, [0.05, 0.95])))


def test_a_pair_is_resampled_alike_so_that_a_constant_gain_has_no_width():
    scores = np.random.default_rng(0).normal(size=200)
    first, other = image_means({"m": scores}), image_means({"m": scores + 0.25})
    low, high = paired_intervals(first, other)["m"]
    assert low == pytest.approx(0.25) and high == pytest.approx(0.25)
    alone_low, alone_high = bootstrap_intervals(other)["m"]
    assert alone_high - alone_low > 0.2, "the control: not paired"


def test_the_paired_interval_is_the_naive_one():
    random = np.random.default_rng(1)
    first, other = random.normal(size=(2, 30))
    found = paired_intervals(image_means({"m": first, "n": first}), image_means({"m": other}), 0.9, 500, seed=3)
    assert found.keys() == {"m"}
    drawn = generator("bootstrap", 3)
    rows = [drawn.integers(0, 30, 30) for _ in range(500)]
    differences = [other[row].mean() - first[row].mean() for row in rows]
    assert found["m"] == pytest.approx(tuple(np.quantile(differences, [0.05, 0.95])))


def test_pairs_of_other_images_are_refused():
    with pytest.raises(UsageError, match="same images"):
        paired_intervals(image_means({"m": [1.0]}), image_means({"m": [1.0, 2.0]}))
