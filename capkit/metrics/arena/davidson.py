"""Maximum-likelihood ratings of battles with ties (Davidson 1970).

P players, R sets of battles.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Standard deviation of the prior on log-strengths, 1,737 points: it holds those that have no finite maximum, of players
# who won or lost all battles, and moves others by less than their intervals' rounding.
PRIOR_SD = 10.0
_MAX_STEP, _MAX_STEPS, _TOLERANCE = 2.0, 200, 1e-9


class Fit(NamedTuple):
    """Log-strengths with mean 0, and the log of the tie parameter, -inf without any tie."""

    strengths: Float[np.ndarray, "R P"]
    log_ties: Float[np.ndarray, " R"]


def davidson(wins: Float[np.ndarray, "R P P"], ties: Float[np.ndarray, "R P P"], prior_sd: float = PRIOR_SD) -> Fit:
    """Log-strengths s of Davidson's model, by Newton's method.

    i beats j with a probability proportional to exp(s_i), loses with exp(s_j), ties with n exp((s_i + s_j) / 2).
    Without ties it is Bradley and Terry's model. Ties as half a win would pull strengths together, and make intervals
    that miss them.

    Args:
        wins: Times that i won against j.
        ties: Ties of i and j, the same at (j, i).
        prior_sd: Of a normal prior on strengths and the log tie parameter; math.inf: none, and every player must
            have won and lost.
    """
    num_sets, num_players = wins.shape[:2]
    battles = wins + wins.swapaxes(1, 2) + ties
    credit = (wins + ties / 2).sum(2)
    num_ties = ties.sum((1, 2)) / 2
    has_ties = num_ties > 0
    precision = 0.0 if math.isinf(prior_sd) else prior_sd**-2
    strengths, log_ties = np.zeros((num_sets, num_players)), np.where(has_ties, 0.0, -np.inf)
    for _ in range(_MAX_STEPS):
        win, tie = _probabilities(strengths, log_ties)
        share = win + tie / 2  # i's expected part of a battle with j
        gradient = np.concatenate(
            [
                credit - (battles * share).sum(2) - precision * strengths,
                (num_ties - (battles * tie).sum((1, 2)) / 2 - precision * np.where(has_ties, log_ties, 0.0))[:, None],
            ],
            axis=1,
        )
        information = _information(battles, share, win, tie)
        information[:, :num_players, :num_players] += precision * np.eye(num_players) + 1 / num_players  # pins the mean
        information[:, -1, -1] = np.where(has_ties, information[:, -1, -1] + precision, 1.0)
        step = np.linalg.solve(information, gradient[..., None])[..., 0]
        step *= np.minimum(1.0, _MAX_STEP / np.maximum(np.abs(step).max(1, keepdims=True), _TOLERANCE))
        strengths, log_ties = strengths + step[:, :-1], log_ties + step[:, -1]
        if np.abs(step).max() < _TOLERANCE:
            return Fit(strengths - strengths.mean(1, keepdims=True), log_ties)
    raise AssertionError("no maximum: a player without a loss or without a win needs a prior")


def _probabilities(
    strengths: Float[np.ndarray, "R P"], log_ties: Float[np.ndarray, " R"]
) -> tuple[Float[np.ndarray, "R P P"], Float[np.ndarray, "R P P"]]:
    """That i beats j, and that they tie."""
    half = (strengths[:, :, None] - strengths[:, None, :]) / 2
    win, lose, tie = np.exp(half), np.exp(-half), np.exp(log_ties)[:, None, None]
    total = win + lose + tie
    return win / total, tie / total


def _information(
    battles: Float[np.ndarray, "R P P"],
    share: Float[np.ndarray, "R P P"],
    win: Float[np.ndarray, "R P P"],
    tie: Float[np.ndarray, "R P P"],
) -> Float[np.ndarray, "R Q Q"]:
    """Fisher's information of the P strengths and the log tie parameter: covariances of what a battle adds to each."""
    num_players = battles.shape[1]
    variance = battles * (win + tie / 4 - share**2)
    found = np.zeros((len(battles), num_players + 1, num_players + 1))
    found[:, :-1, :-1] = variance.sum(2)[:, :, None] * np.eye(num_players) - variance
    found[:, :-1, -1] = found[:, -1, :-1] = (battles * tie * (0.5 - share)).sum(2)
    found[:, -1, -1] = (battles * tie * (1 - tie)).sum((1, 2)) / 2
    return found
