"""Epochs of unequal length: which list of bags each epoch of a run takes, and where a step lies among them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from capkit.errors import UsageError


@dataclass(frozen=True)
class Epoch:
    """One pass over the bags of a list: the first step it belongs to, and its number of batches."""

    name: str
    start: int
    num_batches: int


class Stages:
    """A map from bounds to lists of bags. {3: "hard-2", 8: "hard-3"}: before epoch (or step) 3 hard-2, then hard-3.

    The last list stays for good. By epochs, each epoch takes one list whole. By steps, an epoch ends where its stage
    does: the next list begins with an epoch of its own. `num_batches` says how many batches a list gives an epoch.
    """

    def __init__(self, stages: Mapping[Any, str], by: str, num_batches: Callable[[str], int]) -> None:
        if by not in ("epoch", "step"):
            raise UsageError(f"stages go by epoch or by step; got by={by!r}")
        if not stages or not all(str(bound).isdecimal() and int(bound) > 0 for bound in stages):
            raise UsageError(
                f"stages map a bound ({by}s, 1 or more) to a list of bags, e.g. {{3: hard-2, 8: hard-3}}; "
                f"got {dict(stages)}"
            )
        self._bounds = sorted((int(bound), name) for bound, name in stages.items())
        if len({bound for bound, _ in self._bounds}) < len(self._bounds):
            raise UsageError(f"stages name a bound twice; got {dict(stages)}")
        self._by, self._num_batches = by, num_batches
        self._epochs: list[Epoch] = []

    @property
    def names(self) -> list[str]:
        """The lists in use, each once, in order."""
        return list(dict.fromkeys(name for _, name in self._bounds))

    def describe(self) -> list[str]:
        """Of each stage a phrase: "until epoch 3: hard-2"."""
        return [f"until {self._by} {bound}: {name}" for bound, name in self._bounds]

    def epoch(self, number: int) -> Epoch:
        while len(self._epochs) <= number:
            self._epochs.append(self._next())
        return self._epochs[number]

    def place(self, step: int) -> tuple[int, int]:
        """(epoch, batches of it that are done) after this many steps."""
        number = 0
        while self.epoch(number).start + self.epoch(number).num_batches <= step:
            number += 1
        return number, step - self.epoch(number).start

    def num_steps(self, epochs: float | int) -> int:
        """Steps of the first `epochs` epochs; of a part of an epoch, that part of its batches."""
        whole = math.floor(epochs)
        last = self.epoch(whole)
        return last.start + round((epochs - whole) * last.num_batches)

    def _next(self) -> Epoch:
        last = self._epochs[-1] if self._epochs else None
        start = last.start + last.num_batches if last else 0
        at = len(self._epochs) if self._by == "epoch" else start
        bound, name = next((stage for stage in self._bounds if at < stage[0]), self._bounds[-1])
        num_batches = self._num_batches(name)
        if self._by == "step" and start < bound:
            num_batches = min(num_batches, bound - start)
        return Epoch(name, start, num_batches)
