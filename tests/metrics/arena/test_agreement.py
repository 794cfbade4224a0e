import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.metrics.arena.agreement import caption_level, model_level
from capkit.metrics.arena.battles import Battle
from capkit.metrics.arena.ratings import Rating


def battle(picture, people, level, a="x", b="y"):
    return Battle(str(picture), a, b, people=people, level=level)


def test_seven_battles_by_hand():
    """Counted: the first five. With ties 3 of 5 agree; both say who won in 3, and 2 of these agree."""
    battles = [
        battle(0, "a", 1),
        battle(1, "b", 1),
        battle(2, "a", 4),
        battle(3, "tie", 4),
        battle(4, "a", 4),
        battle(5, "a", 1, a="human"),  # a person's caption
        battle(6, "a", 1),  # no readable verdict
    ]
    verdicts = ["a", "b", "b", "tie", "tie", "b", None]
    images = caption_level(battles, verdicts)
    found = {name: value[0] for name, value in images.numbers(images.values.sum(0)[None]).items()}
    assert found["ties/overall"] == 3 / 5
    assert found["no_ties/overall"] == 2 / 3
    assert found["ties/level_1"] == 1 and found["no_ties/level_1"] == 1
    assert found["ties/level_4"] == 1 / 3 and found["no_ties/level_4"] == 0
    assert images.values.shape[0] == 7  # pictures


def ratings(**values):
    return [Rating(name, float(value), (0.0, 0.0), (0.0, 0.0)) for name, value in values.items()]


def test_models_in_three_orders_by_hand():
    """Of six pairs one is turned: tau (5 - 1) / 6; rank differences 1 and -1: rho 1 - 6 x 2 / (4 x 15) = .8."""
    found = model_level(ratings(p=4, q=3, r=1, s=2), ratings(p=40, q=30, r=20, s=10))
    assert found == {"spearman": pytest.approx(0.8), "kendall": pytest.approx(4 / 6)}


def test_a_ranking_of_people_may_name_models_that_no_battle_has():
    """The published ranking has "human" second, whose battles are left out; the others keep their order."""
    found = model_level(ratings(p=4, q=3, r=2), ["p", "human", "q", "r"])
    assert found == {"spearman": pytest.approx(1), "kendall": pytest.approx(1)}


def test_models_of_other_names_are_an_error():
    with pytest.raises(UsageError, match="two models or more that both people and the judge rate, got 1"):
        model_level(ratings(p=1, q=2), ["p", "Q"])


def test_no_ties_is_asked_of_people_and_judge():
    images = caption_level([battle(0, "tie", 2), battle(1, "a", 2)], ["a", "tie"])
    found = images.numbers(images.values.sum(0)[None])
    assert found["ties/overall"][0] == 0 and np.isnan(found["no_ties/overall"][0])
