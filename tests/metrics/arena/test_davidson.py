import math

import numpy as np
import pytest

from capkit.metrics.arena.davidson import davidson


def tables(wins, ties):
    return np.array([wins], dtype=float), np.array([ties], dtype=float)


def test_two_players_by_hand():
    """12 won, 3 lost, 6 ties. Observed shares are met: odds e^d = 12 / 3, so d = ln 4; n = 6 / sqrt(12 x 3) = 1."""
    fit = davidson(*tables([[0, 12], [3, 0]], [[0, 6], [6, 0]]), prior_sd=math.inf)
    assert fit.strengths[0] == pytest.approx([math.log(4) / 2, -math.log(4) / 2])
    assert fit.log_ties[0] == pytest.approx(0.0, abs=1e-9)


def test_without_ties_it_is_bradley_and_terry():
    """A ring, each beats the next 2 to 1: all are equal. A fourth that wins 3 of 4 against one is ln 3 above."""
    wins = np.zeros((4, 4))
    for i in range(3):
        wins[i, (i + 1) % 3], wins[(i + 1) % 3, i] = 2, 1
    wins[3, 0], wins[0, 3] = 3, 1
    fit = davidson(*tables(wins, np.zeros((4, 4))), prior_sd=math.inf)
    assert fit.strengths[0] - fit.strengths[0, 0] == pytest.approx([0, 0, 0, math.log(3)], abs=1e-8)
    assert fit.log_ties[0] == -math.inf


def log_likelihood(strengths, log_ties, wins, ties):
    """Naive: one battle of two players after the other."""
    total = 0.0
    for i in range(len(strengths)):
        for j in range(len(strengths)):
            weights = [math.exp(strengths[i]), math.exp(strengths[j])]
            tie = math.exp(log_ties + (strengths[i] + strengths[j]) / 2)
            if i != j:
                total += wins[i, j] * math.log(weights[0] / (sum(weights) + tie))
            if i < j:
                total += ties[i, j] * math.log(tie / (sum(weights) + tie))
    return total


def test_no_neighbour_is_likelier():
    random = np.random.default_rng(0)
    wins = random.integers(1, 9, (5, 5)).astype(float) * (1 - np.eye(5))
    ties = np.triu(random.integers(0, 5, (5, 5)).astype(float), 1)
    ties += ties.T
    fit = davidson(*tables(wins, ties), prior_sd=math.inf)
    best = log_likelihood(fit.strengths[0], fit.log_ties[0], wins, ties)
    for place in range(6):
        for change in (-0.02, 0.02):
            strengths, log_ties = fit.strengths[0].copy(), fit.log_ties[0]
            if place < 5:
                strengths[place] += change
            else:
                log_ties = log_ties + change
            assert log_likelihood(strengths, log_ties, wins, ties) < best


def test_a_player_that_won_all_has_a_finite_rating_and_leaves_the_others_where_they_were():
    wins = np.zeros((3, 3))
    wins[0, 1], wins[1, 0] = 30, 10
    without = davidson(*tables(wins[:2, :2], np.zeros((2, 2)))).strengths[0]
    wins[2, 0] = wins[2, 1] = 20
    fit = davidson(*tables(wins, np.zeros((3, 3)))).strengths[0]
    assert 4 < fit[2] - fit[0] < 20
    assert fit[0] - fit[1] == pytest.approx(without[0] - without[1], abs=0.15)  # an interval is wide .7


def test_two_that_always_tie_and_always_beat_a_third_are_equal():
    """Without a prior neither the tie parameter nor the distance of the third has a maximum."""
    wins, ties = np.zeros((3, 3)), np.zeros((3, 3))
    wins[0, 2] = wins[1, 2] = 6
    ties[0, 1] = ties[1, 0] = 6
    fit = davidson(*tables(wins, ties))
    assert (
        fit.strengths[0, 0] == pytest.approx(fit.strengths[0, 1]) and 4 < fit.strengths[0, 0] - fit.strengths[0, 2] < 40
    )
    assert np.isfinite(fit.log_ties[0]) and fit.log_ties[0] > 1


def test_sets_of_battles_do_not_mix():
    first, second = [[0, 12], [3, 0]], [[0, 1], [5, 0]]
    both = davidson(np.array([first, second], float), np.zeros((2, 2, 2)))
    alone = [davidson(*tables(wins, np.zeros((2, 2)))).strengths[0] for wins in (first, second)]
    assert both.strengths == pytest.approx(np.array(alone))
