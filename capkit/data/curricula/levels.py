"""Stages that begin when a logged number, such as a reward, has reached a level."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from capkit.distributed.collectives import broadcast_object
from capkit.errors import UsageError


class Levels:
    """Which of the stages a run has begun: the next one begins once the mean of a logged number reaches its level.

    It looks once after every `window` steps, at the mean over those steps (NaN is left out of it). So a stage lasts
    `window` steps at least, and a look sees steps of one stage only. What a look finds holds for all steps from there
    on: until then no batch of them can be known. Rank 0 decides for all ranks.

    `levels`: the first one ends the first stage, and so on. They need not rise: the same number may fall when a stage
    begins. Raises UsageError for levels that are no numbers, and for a window of less than a step.
    """

    def __init__(self, name: str, levels: Sequence[float | int], window: int) -> None:
        if not all(isinstance(level, int | float) and math.isfinite(level) for level in levels):
            raise UsageError(f"levels must be numbers, such as [0.8, 0.8]; got {list(levels)}")
        if window < 1:
            raise UsageError(f"window must be 1 or more steps; got {window}")
        self.name, self.levels, self.window = name, [float(level) for level in levels], window
        self.began: list[int] = []
        self._step, self._sum, self._count = 0, 0.0, 0

    def observe(self, step: int, value: float) -> bool:
        """Takes the number of the step that was just done, the `step`-th; whether the next stage begins with it.

        Every rank calls it after every step. It communicates at a look.
        """
        if self._is_last:
            return False
        self._step = step
        if not math.isnan(value):
            self._sum, self._count = self._sum + value, self._count + 1
        if step % self.window:
            return False
        mean = self._sum / self._count if self._count else math.nan
        begins = broadcast_object(mean >= self.levels[len(self.began)])
        self._sum, self._count = 0.0, 0
        if begins:
            self.began.append(step)
        return begins

    def known_until(self, step: int) -> float | int:
        """The step before which, from `step` on, all stages are known: the next look.

        Raises UsageError where the numbers of the steps before it were not told: the stages of those are unknown.
        """
        if self._is_last:
            return math.inf
        if step != self._step:
            raise UsageError(
                f"a curriculum by level is told {self.name} after each step; it knows {self._step} steps and is asked "
                f"for step {step}; resume with the run's own checkpoint, and train by capkit's tasks"
            )
        return (step // self.window + 1) * self.window

    @property
    def _is_last(self) -> bool:
        """Whether the last stage has begun."""
        return len(self.began) == len(self.levels)

    def state_dict(self) -> dict[str, Any]:
        """`began`: the steps at which the second stage and later ones began."""
        return {"began": list(self.began), "step": self._step, "sum": self._sum, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.began[:] = state["began"]
        self._step, self._sum, self._count = state["step"], state["sum"], state["count"]
