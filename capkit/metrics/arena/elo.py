"""Online Elo ratings of battles.

N battles, P players, R orders.
"""

import numpy as np
from jaxtyping import Float, Int

from capkit.metrics.arena.battles import Results

K, SCALE, BASE, START = 4.0, 400.0, 10.0, 1000.0
NO_BATTLE = -1


def online_elo(results: Results, rows: Int[np.ndarray, "R N"] | None = None, k: float = K) -> Float[np.ndarray, "R P"]:
    """Ratings after the battles, one at a time: a's rating moves by k (score - 1 / (1 + 10^((b - a) / 400))), b's back.

    All start at 1,000. `rows` has the battles of each of R sequences, NO_BATTLE where one is shorter; None: all in
    their order. With k = 4 (Cheng et al. 2025, and their program) ratings stay far from their limit after some hundred
    battles a player: their order counts, their distances do not.
    """
    rows = np.arange(len(results))[None] if rows is None else rows
    rating = np.full((len(rows), len(results.players)), START)
    every = np.arange(len(rows))
    for battle in rows.T:
        a, b = results.a[battle], results.b[battle]
        expected = 1 / (1 + BASE ** ((rating[every, b] - rating[every, a]) / SCALE))
        change = np.where(battle == NO_BATTLE, 0.0, k * (results.score[battle] - expected))
        rating[every, a] += change
        rating[every, b] -= change
    return rating
