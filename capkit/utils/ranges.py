"""Ranges of numbers as annotations: `width: PositiveInt`, `top_p: PositiveProbability`.

Constructors that configs name annotate their numbers with these. `check_ranges` enforces them on calls from Python, and
the config check reads them from source, before torch is imported. A range that no alias covers is written in place:
`Annotated[int, Range(3)]`. NaN and infinity lie in no range, and integers must fit in 64 bits.
"""

import functools
import inspect
import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, TypeAlias, TypeVar, Union, get_args, get_origin

from capkit.errors import UsageError

INT64_MAX = 2**63 - 1


@dataclass(frozen=True)
class Range:
    """An interval of numbers. None leaves a side unbounded; `above` and `below` exclude the bound itself."""

    low: float | int | None = None
    high: float | int | None = None
    above: float | int | None = None
    below: float | int | None = None

    def __contains__(self, value: Any) -> bool:
        return (
            is_finite(value)
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Follows a noun: "of at least 1", "from 0 to 1"."""
        if self.low is not None and self.high is not None:
            return f"from {self.low} to {self.high}"
        parts = (
            ("of at least", self.low), ("greater than", self.above), ("at most", self.high), ("less than", self.below),
        )  # fmt: skip
        return " and ".join(f"{words} {bound}" for words, bound in parts if bound is not None)


@dataclass(frozen=True)
class Length:
    """The number of members of a sequence: `Annotated[Sequence[DecayRate], Length(2)]`."""

    count: int

    def __str__(self) -> str:
        return f"a list of {self.count}"


# A parameter of floats takes integers too.
AnyInt: TypeAlias = Annotated[int, Range()]
PositiveInt: TypeAlias = Annotated[int, Range(1)]
NonNegativeInt: TypeAlias = Annotated[int, Range(0)]
AtLeastTwo: TypeAlias = Annotated[int, Range(2)]
Seed: TypeAlias = Annotated[int, Range(0)]
ThreadCount: TypeAlias = Annotated[int, Range(1, 1024)]  # some thousands end torch in a segmentation fault
WorkerCount: TypeAlias = Annotated[int, Range(0, 1024)]
FiniteFloat: TypeAlias = Annotated[float | int, Range()]
PositiveFloat: TypeAlias = Annotated[float | int, Range(above=0)]
NonNegativeFloat: TypeAlias = Annotated[float | int, Range(0)]
Probability: TypeAlias = Annotated[float | int, Range(0, 1)]
PositiveProbability: TypeAlias = Annotated[float | int, Range(above=0, high=1)]
OpenProbability: TypeAlias = Annotated[float | int, Range(above=0, below=1)]
DecayRate: TypeAlias = Annotated[float | int, Range(0, below=1)]
DropoutRate: TypeAlias = Annotated[float | int, Range(0, below=1)]


@dataclass(frozen=True)
class Interval:
    """The numbers that an annotation admits: a range of integers, or of integers and floats."""

    is_integer: bool
    range: Range

    @classmethod
    def of(cls, annotation: Any) -> "Interval | None":
        """None where the annotation is no `Annotated` number."""
        base, *metadata = get_args(annotation) if get_origin(annotation) is Annotated else (None,)
        found = next((item for item in metadata if isinstance(item, Range)), None)
        return None if found is None else cls(base is int, found)

    def __contains__(self, value: Any) -> bool:
        return value in self.range and (isinstance(value, Integral) or not self.is_integer)

    def __str__(self) -> str:
        return f"{'an integer' if self.is_integer else 'a finite number'} {self.range}".rstrip()


ALIASES = {name: interval for name, value in list(globals().items()) if (interval := Interval.of(value))}

T = TypeVar("T", bound=Callable[..., Any])


def is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether a value is a number that a setting may be: no NaN, no infinity, no integer beyond 64 bits."""
    if isinstance(value, Integral):
        return is_number(value) and -INT64_MAX <= int(value) <= INT64_MAX
    return is_number(value) and math.isfinite(value)


def shown(value: Any) -> str:
    """A number for a message; Python itself refuses to print integers of thousands of digits."""
    return "an integer beyond 64 bits" if isinstance(value, Integral) and not is_finite(value) else repr(value)


def check_ranges(target: T) -> T:
    """Decorate a class or function whose numbers are annotated by ranges: calls outside of them raise UsageError.

    Arguments of a class are those of its `__init__`, written or made by `dataclass`. Types are not checked.
    """
    if isinstance(target, type):
        target.__init__ = check_ranges(target.__init__)  # type: ignore[misc]
        return target
    signature = inspect.signature(target)
    ranged = {name: p.annotation for name, p in signature.parameters.items() if _has_numbers(p.annotation)}

    @functools.wraps(target)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return target(*args, **kwargs)  # which says what is wrong
        owner = type(args[0]).__name__ if "self" in given else target.__name__
        for name, annotation in ranged.items():
            for problem in _problems(annotation, given.get(name)):
                raise UsageError(f"{owner}: {name}: {problem}")
        return target(*args, **kwargs)

    checked.ranges = ranged  # type: ignore[attr-defined]
    return checked  # type: ignore[return-value]


def _options(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        for option in get_args(annotation):
            yield from _options(option)
    else:
        yield annotation


def _has_numbers(annotation: Any) -> bool:
    return any(
        Interval.of(option) is not None or option in (int, float) or any(_has_numbers(arg) for arg in get_args(option))
        for option in _options(annotation)
    )


def _problems(annotation: Any, value: Any) -> Iterator[str]:
    """What of a value lies outside of the ranges that an annotation names."""
    options = list(_options(annotation))
    if is_number(value):
        intervals = [interval for option in options if (interval := Interval.of(option))]
        if not (any(value in interval for interval in intervals) if intervals else is_finite(value)):
            words = " or ".join(map(str, intervals)) or "a finite number"
            yield f"expected {words}{' or None' if type(None) in options else ''}, got {shown(value)}"
    elif isinstance(value, Mapping | Sequence) and not isinstance(value, str):
        yield from _problems_of_members(options, value)


def _problems_of_members(options: list[Any], value: Mapping[Any, Any] | Sequence[Any]) -> Iterator[str]:
    kind = Mapping if isinstance(value, Mapping) else Sequence
    for option in options:
        length = None
        if get_origin(option) is Annotated:
            option, *metadata = get_args(option)
            length = next((item for item in metadata if isinstance(item, Length)), None)
        origin, arguments = get_origin(option), get_args(option)
        if not isinstance(origin, type) or not issubclass(origin, kind):
            continue
        if length is not None and len(value) != length.count:
            yield f"expected {length}, got {len(value)}"
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _problems(arguments[-1] if kind is Mapping else arguments[0], item)
