"""Ratings of players with bootstrap intervals, by battle or by picture.

N battles, P players, R resamples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from capkit.metrics.arena.battles import Results, require_one_scale
from capkit.metrics.arena.davidson import davidson
from capkit.metrics.arena.elo import NO_BATTLE, SCALE, START, online_elo
from capkit.metrics.bootstrap import CONFIDENCE
from capkit.utils.rng import generator

Resampling = Literal["battle", "picture"]
NUM_RESAMPLES = 1000  # as published
POINTS = SCALE / math.log(10)  # of a rating, for a unit of log-strength


@dataclass(frozen=True)
class Rating:
    """A player's rating with percentile intervals of resampled battles and of resampled pictures."""

    player: str
    rating: float
    by_battle: tuple[float, float]
    by_picture: tuple[float, float]


def davidson_ratings(
    results: Results, seed: int = 0, num_resamples: int = NUM_RESAMPLES, confidence: float = CONFIDENCE
) -> list[Rating]:
    """1,000 + 400 / ln 10 x log-strengths of Davidson's model, best first. Raises UsageError without a common scale."""
    require_one_scale(results)
    found = [_davidson(results, rows) for rows in _all_rows(results, seed, num_resamples)]
    return _listed(results, found[0][0], found[1], found[2], confidence)


def elo_ratings(
    results: Results, seed: int = 0, num_resamples: int = NUM_RESAMPLES, confidence: float = CONFIDENCE
) -> list[Rating]:
    """Online Elo as CapArena ranks by it: the median over resamples of the battles, which are in an order of their own.

    Raises UsageError without a common scale.
    """
    require_one_scale(results)
    _, by_battle, by_picture = (_elo(results, rows) for rows in _all_rows(results, seed, num_resamples))
    return _listed(results, np.median(by_battle, axis=0), by_battle, by_picture, confidence)


def won_or_lost_all(results: Results) -> list[str]:
    """Players without a finite maximum of the likelihood: their ratings follow from Davidson's prior."""
    scores: dict[str, set[float]] = {name: set() for name in results.players}
    for a, b, score in zip(results.a, results.b, results.score, strict=True):
        scores[results.players[a]].add(float(score))
        scores[results.players[b]].add(1 - float(score))
    return [name for name, found in scores.items() if found in ({0.0}, {1.0})]


def resampled(results: Results, by: Resampling, num_resamples: int, seed: int) -> list[Int[np.ndarray, " _"]]:
    """Battles of each resample: as many battles, or all battles of as many pictures, in random order."""
    random = generator("battles", by, seed)
    if by == "battle":
        return [random.integers(0, len(results), len(results)) for _ in range(num_resamples)]
    order = np.argsort(results.picture, kind="stable")
    of_picture = np.split(order, np.cumsum(np.bincount(results.picture))[:-1])
    found = []
    for _ in range(num_resamples):
        drawn = random.integers(0, len(of_picture), len(of_picture))
        found.append(random.permutation(np.concatenate([of_picture[picture] for picture in drawn])))
    return found


def _all_rows(results: Results, seed: int, num_resamples: int) -> list[list[Int[np.ndarray, " _"]]]:
    """All battles once, and resamples by battle and by picture."""
    return [[np.arange(len(results))], *(resampled(results, by, num_resamples, seed) for by in ("battle", "picture"))]


def _elo(results: Results, rows: Sequence[Int[np.ndarray, " _"]]) -> Float[np.ndarray, "R P"]:
    padded = np.full((len(rows), max(map(len, rows))), NO_BATTLE)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return online_elo(results, padded)


def _davidson(results: Results, rows: Sequence[Int[np.ndarray, " _"]]) -> Float[np.ndarray, "R P"]:
    """Ratings by each set of battles, NaN of players without a battle in it."""
    wins, ties = tables(results, rows)
    rating = START + POINTS * davidson(wins, ties).strengths
    return np.where((wins + wins.swapaxes(1, 2) + ties).any(2), rating, np.nan)


def tables(
    results: Results, rows: Sequence[Int[np.ndarray, " _"]]
) -> tuple[Float[np.ndarray, "R P P"], Float[np.ndarray, "R P P"]]:
    """How often i won against j, and tied with j, in each set of battles."""
    num_players = len(results.players)
    winner, loser = (np.where((results.score > 0.5) == is_a, results.a, results.b) for is_a in (True, False))
    cell = winner * num_players + loser
    is_tie = results.score == 0.5
    shape, size = (num_players, num_players), num_players**2
    wins = [np.bincount(cell[row], (~is_tie[row]).astype(float), size).reshape(shape) for row in rows]
    ties = [np.bincount(cell[row], is_tie[row].astype(float), size).reshape(shape) for row in rows]
    return np.array(wins), np.array([table + table.T for table in ties])


def _listed(
    results: Results,
    ratings: Float[np.ndarray, " P"],
    by_battle: Float[np.ndarray, "R P"],
    by_picture: Float[np.ndarray, "R P"],
    confidence: float,
) -> list[Rating]:
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    battle, picture = (np.nanquantile(values, ends, axis=0).T for values in (by_battle, by_picture))
    rows = zip(results.players, ratings, battle, picture, strict=True)
    found = [
        Rating(name, float(value), (float(x[0]), float(x[1])), (float(y[0]), float(y[1]))) for name, value, x, y in rows
    ]
    return sorted(found, key=lambda rating: (-rating.rating, rating.player))
