"""What a data step is: records in, records out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, runtime_checkable

from capkit.data.records import Caption, Record

Records = Callable[[], Iterable[Record]]


@dataclass(frozen=True)
class Failure:
    """A record that a step left out: why, and what a model said where it said something."""

    key: str
    step: str
    reason: str
    said: str | None = None


@runtime_checkable
class Step(Protocol):
    """`records` gives all records anew each time it is called. The order stays; records may be changed or left out.

    Hooks that a step may have; task=curate calls each that exists: `attach_images(read)` with a function from a
    record's key to its picture (it raises BadImage), `attach_failures(report)` with one that takes each Failure,
    `fingerprint_fields()` for what the result depends on, as plain data, and `counts` for numbers in the report. A step
    whose `by_record` is True treats each record by itself, so that shards of the records can be treated apart.
    """

    def __call__(self, records: Records) -> Iterator[Record]: ...


def batches(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    """`size` records at a time; the last batch may be smaller."""
    rest = iter(records)
    while batch := list(islice(rest, size)):
        yield batch


def captions_of_one_language(record: Record) -> tuple[list[Caption], str]:
    """The captions in the language of the first one, and that language; "" where there is no caption."""
    language = record.captions[0].language if record.captions else ""
    return [caption for caption in record.captions if caption.language == language], language


def ignore_failure(failure: Failure) -> None:
    """Until a task says where failures go."""


def hook(step: Any, name: str, argument: Any) -> None:
    """Calls a hook that the step may have."""
    if hasattr(step, name):
        getattr(step, name)(argument)
