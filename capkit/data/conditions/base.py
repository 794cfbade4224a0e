"""The protocol of a reader of conditions: the value that a caption of the data was, as it were, written under."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from capkit.data.records import Record
from capkit.data.sources.base import DataSource
from capkit.data.targets import Target


@runtime_checkable
class ConditionReader(Protocol):
    """Runs in a data worker. `value_shape` is that of one value: () for a number, (4,) for a box."""

    value_shape: tuple[int, ...]

    def __call__(self, record: Record, target: Target) -> float | Sequence[float] | None:
        """The value of one caption of a record; None where it has none."""
        ...


@runtime_checkable
class OfOneCorpus(Protocol):
    """A reader whose values mean something in the data that it was made of, and nothing elsewhere."""

    def check(self, source: DataSource) -> None:
        """Raises UsageError for training data that it was not made of."""
        ...
