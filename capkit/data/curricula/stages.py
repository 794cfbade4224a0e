"""Epochs of unequal length: which list of bags each epoch of a run uses, and which epoch a step belongs to."""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from capkit.data.curricula.levels import Levels
from capkit.errors import UsageError


@dataclass(frozen=True)
class Epoch:
    """One pass over a list of bags: its first step and its number of batches."""

    name: str
    start: int
    num_batches: int


class Stages:
    """A sequence of lists of bags; the last one is used until the end of training.

    By epoch or step: a map from bounds to lists. {3: "hard-2", 8: "hard-3"}: hard-2 before epoch (or step) 3, then
    hard-3. By level: the lists in order; `levels` determine at which step the next one begins.

    By epoch, each epoch is a complete pass over one list. Otherwise an epoch ends with its stage, and the next list
    begins a new epoch. `num_batches` maps a list to its batches per epoch.
    """

    def __init__(
        self,
        stages: Mapping[Any, str] | Sequence[str],
        by: str,
        num_batches: Callable[[str], int],
        levels: Levels | None = None,
    ) -> None:
        self._by, self._num_batches, self._levels = by, num_batches, levels
        if levels is None:
            self._bounds, self._lists = _bounded(stages, by)
        else:
            self._bounds, self._lists = levels.began, _leveled(stages, by, levels)
        self._epochs: list[Epoch] = []

    @property
    def names(self) -> list[str]:
        """The distinct lists in use, in order."""
        return list(dict.fromkeys(self._lists))

    def describe(self) -> list[str]:
        """A phrase for each stage, e.g. "until epoch 3: hard-2"."""
        if self._levels is None:
            return [f"until {self._by} {bound}: {name}" for bound, name in zip(self._bounds, self._lists, strict=True)]
        number, window = self._levels.name, self._levels.window
        until = [f"until the mean of {number} over {window} steps reaches {level:g}" for level in self._levels.levels]
        return [f"{when}: {name}" for when, name in zip([*until, "then"], self._lists, strict=True)]

    def changed(self) -> None:
        """Recompute the epochs after the levels have begun another stage or loaded another state."""
        self._epochs.clear()

    def epoch(self, number: int) -> Epoch:
        while len(self._epochs) <= number:
            self._epochs.append(self._next())
        return self._epochs[number]

    def place(self, step: int) -> tuple[int, int]:
        """The epoch, and the number of its batches done, after this many steps."""
        number = 0
        while self.epoch(number).start + self.epoch(number).num_batches <= step:
            number += 1
        return number, step - self.epoch(number).start

    def num_steps(self, epochs: float | int) -> int:
        """Steps of the first `epochs` epochs; a fraction of an epoch counts that fraction of its batches.

        Raises UsageError by level for more than one epoch, since the length of later ones is not known in advance.
        """
        if self._levels is not None and epochs > 1:
            raise UsageError(
                "with stages by level the number of steps of several epochs is not known; set max_steps and "
                "max_epochs=null"
            )
        whole = math.floor(epochs)
        last = self.epoch(whole)
        return last.start + round((epochs - whole) * last.num_batches)

    def _next(self) -> Epoch:
        last = self._epochs[-1] if self._epochs else None
        start = last.start + last.num_batches if last else 0
        stage = bisect_right(self._bounds, len(self._epochs) if self._by == "epoch" else start)
        name = self._lists[min(stage, len(self._lists) - 1)]
        num_batches = self._num_batches(name)
        if self._by != "epoch" and stage < len(self._bounds):
            num_batches = min(num_batches, self._bounds[stage] - start)
        return Epoch(name, start, num_batches)


def _bounded(stages: Mapping[Any, str] | Sequence[str], by: str) -> tuple[list[int], list[str]]:
    """The bounds in ascending order, and the list used until each."""
    if by not in ("epoch", "step"):
        raise UsageError(f"stages go by epoch, step or level; got by={by!r}")
    is_map = isinstance(stages, Mapping) and bool(stages)
    if not is_map or not all(str(bound).isdecimal() and int(bound) > 0 for bound in stages):
        raise UsageError(
            f"stages map a bound ({by}s, 1 or more) to a list of bags, e.g. {{3: hard-2, 8: hard-3}}; got {stages}"
        )
    assert isinstance(stages, Mapping)
    ordered = sorted((int(bound), name) for bound, name in stages.items())
    bounds, lists = [bound for bound, _ in ordered], [name for _, name in ordered]
    if len(set(bounds)) < len(bounds):
        raise UsageError(f"stages name a bound twice; got {dict(stages)}")
    return bounds, lists


def _leveled(stages: Mapping[Any, str] | Sequence[str], by: str, levels: Levels) -> list[str]:
    if by != "level":
        raise UsageError(f"levels are for stages by level; got by={by!r} and levels={levels.levels}")
    if isinstance(stages, Mapping | str) or len(stages) < 2 or len(levels.levels) != len(stages) - 1:
        raise UsageError(
            "by level, stages are two or more lists of bags in their order, and levels one number fewer, e.g. "
            f"stages=[hard-2,hard-3,hard-5] levels=[0.8,0.8]; got stages={stages} levels={levels.levels}"
        )
    return list(stages)
