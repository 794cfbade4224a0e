"""Agreement of scores with grades: by hand, by a naive count, and its intervals."""

import math

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.metrics.correlation import kendall, pearson
from capkit.metrics.rating import RatedCaptions, rating_intervals, rating_numbers

THREE = RatedCaptions(["a", "a b c", "a b"], [1.0, 3.0, 3.0], [0.0, -1.0, -3.0])
TWO = RatedCaptions(["a b c d", "a"], [5.0, 2.0], [2.0, 0.0])


def drawn(count=40, seed=0):
    draw = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        size = draw.integers(1, 5)
        grades = draw.integers(0, 5, size).astype(float)
        captions = ["a " * draw.integers(1, 9) for _ in range(size)]
        pictures.append(RatedCaptions(captions, (grades + 2 * draw.normal(size=size)).tolist(), grades.tolist()))
    return pictures


def test_accuracy_and_tau_by_hand():
    """THREE: 1 < 3 twice wrong, a tie is half right: .5 of 3. TWO is right. From 2: of (0, 2) and TWO's pair, one."""
    numbers = rating_numbers([THREE, TWO], [2, 4])
    assert numbers["accuracy"] == pytest.approx(1.5 / 4) and numbers["accuracy_from_2"] == pytest.approx(1.5 / 3)
    assert math.isnan(numbers["accuracy_from_4"]) and "kendall_all" not in numbers
    of_three = (0 - 2) / math.sqrt(2 * 3)  # two pairs the other way, one tied in scores
    assert numbers["kendall"] == pytest.approx((of_three + 1) / 2)


def test_correlations_with_length_are_pearsons_over_all_captions():
    pictures = drawn()
    words = [float(len(text.split())) for p in pictures for text in p.captions]
    numbers = rating_numbers(pictures, is_ranking=False)
    scores, grades = ([v for p in pictures for v in getattr(p, name)] for name in ("scores", "grades"))
    assert numbers["length_correlation"] == pytest.approx(pearson(scores, words))
    assert numbers["grades_length_correlation"] == pytest.approx(pearson(grades, words))
    assert numbers["kendall_all"] == pytest.approx(kendall(scores, grades))


def test_pairs_are_counted_as_one_by_one():
    pictures, right, count = drawn(), 0.0, 0
    for picture in pictures:
        for i, better in enumerate(picture.grades):
            for j, worse in enumerate(picture.grades):
                if better >= worse + 2:
                    count += 1
                    lead = picture.scores[i] - picture.scores[j]
                    right += 1 if lead > 0 else 0.5 if lead == 0 else 0
    assert rating_numbers(pictures, [2])["accuracy_from_2"] == pytest.approx(right / count)


def test_intervals_hold_the_numbers_and_shrink_with_pictures():
    few, many = drawn(30), drawn(300)
    numbers, narrow, wide = (
        rating_numbers(many, [2], False),
        rating_intervals(many, [2], False, num_resamples=300),
        rating_intervals(few, [2], False, num_resamples=300),
    )
    assert narrow.keys() == numbers.keys()
    for name, (low, high) in narrow.items():
        assert low < numbers[name] < high
        assert high - low < wide[name][1] - wide[name][0]


def test_an_interval_of_tau_is_that_of_resampled_pictures():
    """Against a naive resampling; a picture that is drawn twice counts twice."""
    pictures, taus = drawn(25), []
    draw = np.random.default_rng(0)
    for _ in range(300):
        some = [pictures[i] for i in draw.integers(0, 25, 25)]
        taus.append(kendall(*([v for p in some for v in getattr(p, name)] for name in ("scores", "grades"))))
    low, high = rating_intervals(pictures, (), False, num_resamples=300)["kendall_all"]
    assert (low, high) == pytest.approx(tuple(np.quantile(taus, [0.025, 0.975])), abs=0.05)


def test_the_order_of_captions_and_pictures_does_not_matter():
    pictures = drawn()
    turned = [RatedCaptions(p.captions[::-1], p.scores[::-1], p.grades[::-1]) for p in pictures[::-1]]
    assert rating_numbers(pictures, [1], False) == pytest.approx(rating_numbers(turned, [1], False))


def test_single_captions_have_no_pairs_and_nothing_is_refused():
    alone = RatedCaptions(["a b"], [1.0], [2.0])
    numbers = rating_numbers([alone], is_ranking=False)
    assert all(math.isnan(value) for value in numbers.values())
    with pytest.raises(UsageError, match="expected rated captions, got none"):
        rating_numbers([])
