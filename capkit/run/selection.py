"""Selection of the best checkpoint by an expression: `max clip_score s.t. cider >= 0.9 * initial`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from capkit.errors import UsageError

GRAMMAR = """  max|min NAME [s.t. NAME >=|<= NUMBER [* initial] [and NAME >=|<= NUMBER [* initial] ...]]
NAME is a validation metric without "val/", and may leave out "_mean"; initial is its value at the run's first
validation; for example
  max clip_score s.t. cider >= 0.9 * initial and repetition <= 0.1"""

_NAME = r"[A-Za-z_][\w/]*"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_BOUND = re.compile(rf"\s*(>=|<=)\s*({_NUMBER})\s*(\*\s*initial)?\s*")
_LIMIT = re.compile(rf"\s*({_NAME})(.*)", re.DOTALL)
_AIM = re.compile(rf"\s*(max|min)\s+({_NAME})\s*", re.DOTALL)


@dataclass(frozen=True)
class Bound:
    """A bound `<= 0.3` or `>= 0.9 * initial` on a number, absolute or relative to its first value. NaN violates it."""

    at_least: bool
    number: float
    of_initial: bool = False

    @classmethod
    def parse(cls, text: str) -> "Bound | None":
        """None if the text is not a bound."""
        match = _BOUND.fullmatch(text)
        return None if match is None else cls(match[1] == ">=", float(match[2]), match[3] is not None)

    def holds(self, value: float | int, initial: float | int | None = None) -> bool:
        limit = self.number
        if self.of_initial:
            assert initial is not None, f"{self} needs the initial value"
            limit *= initial
        return value >= limit if self.at_least else value <= limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.number:g}{' * initial' if self.of_initial else ''}"


@dataclass(frozen=True)
class Selection:
    """A metric to maximise or minimise among the validations that satisfy all limits."""

    mode: str
    name: str
    limits: tuple[tuple[str, Bound], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Selection":
        """Raises UsageError, which shows the grammar, if the text does not follow it."""
        aim, *conditions = re.split(r"\bs\.t\.", text)
        match = _AIM.fullmatch(aim)
        if match is None:
            raise _not_understood(text, f"{aim.strip()!r} is not 'max NAME' or 'min NAME'")
        if len(conditions) > 1:
            raise _not_understood(text, "it has more than one 's.t.'")
        parts = re.split(r"\band\b", conditions[0]) if conditions else []
        return cls(match[1], match[2], tuple(_limit(text, part) for part in parts))

    @property
    def names(self) -> list[str]:
        """The metrics that it uses."""
        return list(dict.fromkeys([self.name, *(name for name, _ in self.limits)]))

    def broken(self, values: Mapping[str, float], initial: Mapping[str, float]) -> list[str]:
        """The limits that these values violate, as text."""
        return [
            f"{name} {bound}"
            for name, bound in self.limits
            if not bound.holds(values[name], initial[name] if bound.of_initial else None)
        ]

    def improves(self, value: float | int, best: float | int | None) -> bool:
        """Whether a value is better than the best so far. NaN never is."""
        if value != value:
            return False
        return best is None or (value > best if self.mode == "max" else value < best)


def _limit(text: str, part: str) -> tuple[str, Bound]:
    match = _LIMIT.fullmatch(part)
    bound = None if match is None else Bound.parse(match[2])
    if match is None or bound is None:
        raise _not_understood(text, f"{part.strip()!r} is no limit")
    return match[1], bound


def _not_understood(text: str, why: str) -> UsageError:
    return UsageError(f"callback.checkpoints.select={text!r} is not understood: {why}; expected\n{GRAMMAR}")
