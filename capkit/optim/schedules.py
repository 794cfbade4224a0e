"""Schedules: values that change over training, usable wherever a number may vary by step.

Durations are a share of all steps (a float from 0 to 1) or a number of steps (an int).
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from capkit.errors import UsageError
from capkit.utils.ranges import FiniteFloat, NonNegativeInt, PositiveInt, PositiveProbability, Probability, check_ranges


@runtime_checkable
class Schedule(Protocol):
    def __call__(self, step: int, total_steps: int) -> float | int: ...


def require_total_steps(name: str, value: object, total_steps: int | None) -> None:
    """Raise UsageError if the objective's argument `name` is a schedule and nobody says how long training is."""
    if isinstance(value, Schedule) and total_steps is None:
        raise UsageError(
            f"objective.{name} is a schedule, which needs objective.total_steps, got none; set e.g. "
            "total_steps=${max_steps}"
        )


def value_at(value: float | int | Schedule, step: int, total_steps: int | None) -> float | int:
    """A number as it is; a schedule's value at this step of `total_steps`, which must be known then."""
    if not isinstance(value, Schedule):
        return value
    assert total_steps is not None
    return value(step, total_steps)


def steps_of(duration: float | int, total_steps: int) -> float | int:
    """Convert a duration to steps: a float is a share of `total_steps`, an int is a number of steps."""
    return duration if isinstance(duration, int) else duration * total_steps


def _rise_and_progress(step: int, total_steps: int, warmup: float | int) -> tuple[float | int, float | int]:
    """Progress of the warm-up (0 to 1), and of the steps after it (0 to 1)."""
    warmup_steps = steps_of(warmup, total_steps)
    rise = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return rise, min(1.0, max(0.0, step - warmup_steps) / max(1.0, total_steps - warmup_steps))


@check_ranges
@dataclass(frozen=True)
class Constant:
    """A constant `value`, after a linear warm-up from 0."""

    value: FiniteFloat = 1.0
    warmup: Probability | NonNegativeInt = 0.0

    def __call__(self, step: int, total_steps: int) -> float | int:
        return self.value * _rise_and_progress(step, total_steps, self.warmup)[0]


@check_ranges
@dataclass(frozen=True)
class Linear:
    """A straight line from `start` to `end`, after a linear warm-up from 0 to `start`."""

    start: FiniteFloat = 1.0
    end: FiniteFloat = 0.0
    warmup: Probability | NonNegativeInt = 0.0

    def __call__(self, step: int, total_steps: int) -> float | int:
        rise, progress = _rise_and_progress(step, total_steps, self.warmup)
        return rise * (self.start + (self.end - self.start) * progress)


@check_ranges
@dataclass(frozen=True)
class Cosine(Linear):
    """Half a cosine from `start` to `end`, after a linear warm-up from 0 to `start`."""

    def __call__(self, step: int, total_steps: int) -> float | int:
        rise, progress = _rise_and_progress(step, total_steps, self.warmup)
        return rise * (self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2)


@check_ranges
@dataclass(frozen=True)
class CyclicCosine:
    """Half a cosine from 1 to `end` in each of `cycles` equal cycles (Huang et al. 2017, snapshot ensembles).

    At the end of each cycle the model has converged, so its snapshot can join an ensemble.
    """

    cycles: PositiveInt
    end: Probability = 0.0

    def __call__(self, step: int, total_steps: int) -> float | int:
        progress = step * self.cycles / max(1, total_steps) % 1.0
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * progress)) / 2


@check_ranges
@dataclass(frozen=True)
class Noam:
    """Linear warm-up to 1, then decay by the inverse square root of the step (Vaswani et al. 2017, section 5.3).

    Deliberate difference: (1) scaled so that its peak is 1; the learning rate is the optimizer's.
    """

    warmup: PositiveProbability | PositiveInt = 0.1

    def __call__(self, step: int, total_steps: int) -> float | int:
        warmup = max(1.0, steps_of(self.warmup, total_steps))
        return min((step + 1) / warmup, math.sqrt(warmup / (step + 1)))


@check_ranges
@dataclass(frozen=True)
class Steps:
    """Piecewise constant: `values[i]` from `boundaries[i - 1]` on (a share of all steps, or steps)."""

    boundaries: tuple[Probability | NonNegativeInt, ...]
    values: tuple[FiniteFloat, ...]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.boundaries) + 1:
            raise UsageError(
                f"Steps needs one more value than boundaries; got {len(self.values)} values and "
                f"{len(self.boundaries)} boundaries"
            )

    def __call__(self, step: int, total_steps: int) -> float | int:
        return self.values[sum(step >= steps_of(boundary, total_steps) for boundary in self.boundaries)]
