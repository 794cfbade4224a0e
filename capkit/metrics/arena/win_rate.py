"""Win rates, as they are and between captions of equal length.

N battles.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from capkit.metrics.arena.battles import SCORES, Battle

# Precision of a normal prior on the two coefficients, which have no finite maximum where length decides all battles.
_PRECISION = 1e-2
_MAX_STEPS, _TOLERANCE = 100, 1e-10


def win_rate_at_equal_length(score: Float[np.ndarray, " N"], difference: Float[np.ndarray, " N"]) -> float:
    """The win rate that is left between captions of equal length.

    A logistic regression of the score (1 won, .5 tie, 0 lost) on an intercept and tanh(d / sd), at d = 0; d is the
    difference in words, sd its root mean square. So does length-controlled AlpacaEval (Dubois et al. 2024, section 3).
    NaN without battles, and where all differences are the same and not 0: nothing tells what length does.
    """
    if not len(score) or (np.ptp(difference) == 0 and difference[0] != 0):
        return float("nan")
    scale = float(np.sqrt(np.mean(difference**2)))
    terms = np.stack([np.ones(len(score)), np.tanh(difference / scale) if scale else np.zeros(len(score))], axis=1)
    weights = np.zeros(2)
    for _ in range(_MAX_STEPS):
        expected = 1 / (1 + np.exp(-terms @ weights))
        gradient = terms.T @ (score - expected) - _PRECISION * weights
        information = (terms.T * (expected * (1 - expected))) @ terms + _PRECISION * np.eye(2)
        step = np.linalg.solve(information, gradient)
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), _TOLERANCE))
        weights += step
        if np.abs(step).max() < _TOLERANCE:
            break
    return float(1 / (1 + np.exp(-weights[0])))


def battles_of(player: str, battles: Iterable[Battle]) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """The player's score in each of its battles that has a verdict, and how many words it said more than the other."""
    rows = []
    for battle in battles:
        if battle.verdict is not None and player in (battle.a, battle.b):
            longer = num_words(battle.caption_a) - num_words(battle.caption_b)
            score = SCORES[battle.verdict]
            rows.append((score, float(longer)) if battle.a == player else (1 - score, float(-longer)))
    table = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def longer_wins(battles: Iterable[Battle]) -> float:
    """Share of battles with a winner and captions of different length that the longer one won; NaN without any."""
    won = [
        (battle.verdict == "a") == (num_words(battle.caption_a) > num_words(battle.caption_b))
        for battle in battles
        if battle.verdict in ("a", "b") and num_words(battle.caption_a) != num_words(battle.caption_b)
    ]
    return sum(won) / len(won) if won else float("nan")


def num_words(caption: str) -> int:
    """Words between white space."""
    return len(caption.split())
