"""CapArena-Auto: a model's score against each of some baselines, and their mean (Cheng et al. 2025, section 5)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from capkit.metrics.arena.battles import Battle

BASELINES = ("GPT-4o-0806", "CogVLM2-llama3-chat-19B", "MiniCPM-V2.6-8B")


@dataclass(frozen=True)
class Tally:
    """Battles against a baseline: won, lost, and judged, which are those with a verdict that can be read, with ties."""

    wins: float = 0.0
    losses: float = 0.0
    judged: float = 0.0

    @property
    def score(self) -> float:
        """100 x (wins - losses) / judged, from -100 to 100; of 200 judged that is (wins - losses) / 2, as published."""
        return float(balance(np.array([self.wins]), np.array([self.losses]), np.array([self.judged]))[0])


def balance(
    wins: Float[np.ndarray, " R"], losses: Float[np.ndarray, " R"], judged: Float[np.ndarray, " R"]
) -> Float[np.ndarray, " R"]:
    """100 x (wins - losses) / judged, NaN where nothing is judged."""
    return np.divide(100 * (wins - losses), judged, out=np.full(np.shape(wins), np.nan), where=judged > 0)


def tallies(battles: Iterable[Battle], model: str, baselines: Sequence[str] = BASELINES) -> dict[str, Tally]:
    """What the model did against each baseline. A battle without a verdict counts nowhere, in `judged` neither."""
    counts = {name: [0, 0, 0] for name in baselines}
    for battle in battles:
        players = (battle.a, battle.b)
        baseline = next((name for name in players if name in counts and name != model), None)
        if model not in players or baseline is None or battle.verdict is None:
            continue
        winner = {"a": battle.a, "b": battle.b, "tie": None}[battle.verdict]
        counts[baseline][0] += winner == model
        counts[baseline][1] += winner == baseline
        counts[baseline][2] += 1
    return {name: Tally(*map(float, found)) for name, found in counts.items()}


def auto_scores(found: Mapping[str, Tally], model: str) -> dict[str, float]:
    """Score against each baseline, by its name, and "mean" over all of them.

    A baseline has 0 against itself, which counts in its mean. NaN without a judged battle, and then of the mean too.
    """
    scores = {name: 0.0 if name == model else tally.score for name, tally in found.items()}
    return {**scores, "mean": sum(scores.values()) / len(scores) if scores else math.nan}
