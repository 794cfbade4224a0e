"""Stages that begin when a logged number, such as a reward, reaches a level."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from capkit.distributed.collectives import broadcast_object
from capkit.errors import UsageError


class Levels:
    """Tracks which stage a run has reached: the next one begins once the mean of a logged number reaches its level.

    Checks once per `window` steps, using the mean over those steps without NaN. So a stage lasts at least `window`
    steps, and a check covers steps of one stage only. Later batches depend on the check, so they cannot be prefetched
    before it. Rank 0 decides for all ranks.

    The first of `levels` ends the first stage, and so on. They need not increase, since the number may drop when a
    stage begins. Raises UsageError for levels that are not finite numbers, and for a window below 1.
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
        """Take the number of step `step`, just done, and return whether the next stage begins after it.

        Every rank calls this after every step. Communicates at a check.
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
        """The step of the next check; the stages of steps from `step` until then are known.

        Raises UsageError if the numbers of earlier steps were not observed, since the stage is then unknown.
        """
        if self._is_last:
            return math.inf
        if step != self._step:
            raise UsageError(
                f"a curriculum by level needs {self.name} of every step; expected {step} observed steps, got "
                f"{self._step}; resume with the run's own checkpoint, and train with capkit's tasks"
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
