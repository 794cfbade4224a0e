import math

import pytest

from capkit.metrics.arena.auto_score import Tally, auto_scores, tallies
from capkit.metrics.arena.battles import Battle


def battle(picture, a, b, verdict):
    return Battle(str(picture), a, b, verdict=verdict)


SIX = [
    battle(0, "m", "one", "a"),  # won
    battle(1, "one", "m", "b"),  # won, as the second
    battle(2, "one", "m", "a"),  # lost
    battle(3, "m", "one", "tie"),
    battle(4, "m", "one", None),  # no readable verdict: in wins, losses and judged not at all
    battle(5, "m", "two", "b"),  # lost
]


def test_six_battles_by_hand():
    """Against one: 2 won, 1 lost of 4 judged, 100 x 1 / 4 = 25. Against two: 1 lost of 1, -100. Mean of three: -25."""
    found = tallies(SIX, "m", ["one", "two", "m"])
    assert found["one"] == Tally(2.0, 1.0, 4.0)
    assert auto_scores(found, "m") == {"one": 25.0, "two": -100.0, "m": 0.0, "mean": -25.0}


def test_two_hundred_judged_battles_give_the_published_number():
    """(wins - losses) / 2; a divisor that stays 2 with 100 judged would shrink the score by half."""
    assert Tally(130.0, 58.0, 200.0).score == (130 - 58) / 2
    assert Tally(65.0, 29.0, 100.0).score == (130 - 58) / 2


def test_a_baseline_has_zero_against_itself_in_its_mean():
    battles = [battle(0, "one", "two", "a"), battle(1, "one", "three", "a")]
    assert auto_scores(tallies(battles, "one", ["one", "two", "three"]), "one")["mean"] == pytest.approx(200 / 3)


def test_a_baseline_without_a_judged_battle_leaves_no_mean():
    assert math.isnan(auto_scores(tallies(SIX, "m", ["one", "nobody"]), "m")["mean"])
