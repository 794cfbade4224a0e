import numpy as np
import pytest

from capkit.metrics.arena.battles import Battle, results_of
from capkit.metrics.arena.elo import NO_BATTLE, online_elo


def battle(picture, a, b, verdict):
    return Battle(str(picture), a, b, verdict=verdict)


def test_three_battles_by_hand():
    """x beats y: +- 4 x .5 = 2. Then x (1002) ties z (1000), expected 1 / (1 + 10^(-2/400)). Then y beats z."""
    results = results_of([battle(0, "x", "y", "a"), battle(1, "x", "z", "tie"), battle(2, "z", "y", "b")])
    expected = 1 / (1 + 10 ** (-2 / 400))
    x, z = 1002 + 4 * (0.5 - expected), 1000 - 4 * (0.5 - expected)
    second = 1 / (1 + 10 ** ((998 - z) / 400))
    assert results.players == ("x", "y", "z")
    assert online_elo(results)[0] == pytest.approx([x, 998 + 4 * second, z - 4 * second])
    assert x == pytest.approx(1001.98849, abs=1e-5)


def test_the_order_counts_and_absent_battles_do_not():
    results = results_of([battle(0, "x", "y", "a"), battle(1, "y", "z", "a")])
    rows = np.array([[0, 1, NO_BATTLE], [1, 0, NO_BATTLE], [0, NO_BATTLE, NO_BATTLE]])
    forward, backward, one = online_elo(results, rows)
    assert forward[0] == 1002 and backward[0] > 1002  # y had won before
    assert one.tolist() == [1002, 998, 1000]


def test_what_one_gains_another_loses():
    random = np.random.default_rng(0)
    names = "abcd"
    battles = [
        battle(n, *(names[i] for i in random.permutation(4)[:2]), random.choice(["a", "b", "tie"])) for n in range(60)
    ]
    assert online_elo(results_of(battles)).sum() == pytest.approx(4000)
