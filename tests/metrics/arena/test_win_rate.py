import math

import numpy as np
import pytest

from capkit.metrics.arena.battles import Battle
from capkit.metrics.arena.win_rate import battles_of, longer_wins, win_rate_at_equal_length


def test_without_differences_it_is_the_win_rate():
    score = np.array([1.0] * 60 + [0.5] * 20 + [0.0] * 20)
    assert win_rate_at_equal_length(score, np.zeros(100)) == pytest.approx(0.7, abs=1e-4)  # the prior is not seen


def test_wins_by_length_alone_are_none_at_equal_length():
    """90 captions are longer and win 9 of 10, ten are as much shorter and win 1 of 10: odds of 9 and 1 / 9 cancel."""
    score, difference = np.array([1.0] * 81 + [0.0] * 9 + [1.0] + [0.0] * 9), np.array([8.0] * 90 + [-8.0] * 10)
    assert score.mean() == 0.82
    assert win_rate_at_equal_length(score, difference) == pytest.approx(0.5, abs=0.01)


def test_wins_whatever_the_length_stay():
    difference = np.tile([-5.0, 5.0], 100)
    score = np.tile([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0], 25)  # 3 of 4, longer or shorter
    assert win_rate_at_equal_length(score, difference) == pytest.approx(0.75, abs=1e-3)


def test_it_is_that_of_the_other_turned_around():
    random = np.random.default_rng(1)
    difference = random.normal(3, 6, 300)
    score = (random.random(300) < 1 / (1 + np.exp(-0.4 - 0.2 * difference))).astype(float)
    own, other = win_rate_at_equal_length(score, difference), win_rate_at_equal_length(1 - score, -difference)
    assert own + other == pytest.approx(1)
    assert own == pytest.approx(1 / (1 + math.exp(-0.4)), abs=0.08) and score.mean() > own


def test_one_difference_for_all_tells_nothing():
    assert math.isnan(win_rate_at_equal_length(np.array([1.0, 0.0]), np.array([4.0, 4.0])))
    assert math.isnan(win_rate_at_equal_length(np.zeros(0), np.zeros(0)))


def test_the_longer_captions_share_by_hand():
    def battle(n, a, b, verdict):
        return Battle(str(n), "m", "n", a, b, verdict=verdict)

    rows = [
        ("x y", "x", "a"),
        ("x", "x y", "b"),
        ("x y", "x", "b"),
        ("x", "y", "a"),
        ("x y", "x", "tie"),
        ("x y", "x", None),
    ]
    assert longer_wins(battle(n, *row) for n, row in enumerate(rows)) == 2 / 3
    assert math.isnan(longer_wins([]))


def test_battles_are_seen_from_the_players_side():
    battles = [
        Battle("0", "m", "n", "one two three", "one", verdict="a"),
        Battle("1", "n", "m", "one two", "one", verdict="a"),
        Battle("2", "n", "m", "one", "one two", verdict=None),
        Battle("3", "n", "o", verdict="a"),
    ]
    score, difference = battles_of("m", battles)
    assert score.tolist() == [1.0, 0.0] and difference.tolist() == [2.0, -1.0]
