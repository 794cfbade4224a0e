"""Exact judge of the better one of two captions of a SceneWorld picture."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from capkit.errors import UsageError
from capkit.judges.pairwise import Judgement, Pair
from capkit.sceneworld.chat.battles import better
from capkit.sceneworld.language.oracles import scene_quality
from capkit.sceneworld.world.scene import Scene
from capkit.utils.ranges import NonNegativeFloat, Probability, Seed, check_ranges
from capkit.utils.rng import stable_hash, uniform


@check_ranges
class ScenePairJudge:
    """The caption whose facts agree better with the scene (`scene_quality`), and on demand the biases of judges.

    The scene is the pair's metadata "scene"; picture and references are not looked at.

    Args:
        first_bias: Probability, drawn by (seed, pair), of preferring the caption that stands first, whatever it says.
        length_bias: The same, of preferring the longer one; a tie where both have as many words.
        tie_below: Difference in quality below which it is a tie.
    """

    def __init__(
        self,
        first_bias: Probability = 0.0,
        length_bias: Probability = 0.0,
        tie_below: NonNegativeFloat = 0.0,
        seed: Seed = 0,
    ) -> None:
        if first_bias + length_bias > 1:
            raise UsageError(f"first_bias + length_bias: expected at most 1, got {first_bias} + {length_bias}")
        self._first_bias, self._length_bias, self._tie_below, self._seed = first_bias, length_bias, tie_below, seed

    def about(self) -> dict[str, Any]:
        return {
            "judge": "scene_judge",
            "first_bias": self._first_bias,
            "length_bias": self._length_bias,
            "tie_below": self._tie_below,
            "seed": self._seed,
        }

    def check(self, pairs: Sequence[Pair]) -> None:
        if absent := [pair.key for pair in pairs if "scene" not in pair.metadata]:
            raise UsageError(
                f"judge=scene needs SceneWorld's metadata 'scene', got none for {len(absent)} of {len(pairs)} pairs; "
                "choose another judge"
            )

    def judge(self, pairs: Sequence[Pair]) -> list[Judgement]:
        self.check(pairs)
        draws = uniform(np.array([stable_hash(self._seed, "bias", pair.key) for pair in pairs], dtype=np.uint64), 0)
        return [self._judgement(pair, draw) for pair, draw in zip(pairs, draws.tolist(), strict=True)]

    def _judgement(self, pair: Pair, draw: float) -> Judgement:
        if draw < self._first_bias:
            return Judgement("a", "it stands first")
        if draw < self._first_bias + self._length_bias:
            words = len(pair.a.split()) - len(pair.b.split())
            return Judgement("a" if words > 0 else "b" if words else "tie", f"{words:+d} words")
        scene = Scene.from_dict(dict(pair.metadata["scene"]))
        return better(pair.a, pair.b, lambda text: _quality(scene, text), self._tie_below)


@lru_cache(maxsize=2**16)
def _quality(scene: Scene, text: str) -> float:
    return scene_quality(scene, text)
