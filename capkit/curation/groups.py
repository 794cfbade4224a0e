"""Groups of records: the views of one object, which stand next to each other."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from capkit.data.records import Record
from capkit.data.sources.base import DataSource
from capkit.errors import UsageError


def groups(records: Iterable[Record], step: str) -> Iterator[list[Record]]:
    """The views of each object (`Record.object`), in order.

    Raises UsageError for a record without `object`, and where the views of one object are not neighbours: half a group
    would be taken for a whole one.
    """
    seen: set[str] = set()
    for name, views in groupby(records, lambda record: _object(record, step)):
        if name in seen:
            raise UsageError(
                f"{step}: expected the views of one object next to each other, got those of {name!r} in two places; "
                "sort the records by `object`"
            )
        seen.add(name)
        yield list(views)


def _object(record: Record, step: str) -> str:
    if record.object is None:
        raise UsageError(
            f"{step} works on the views of an object, but record {record.key!r} does not say what it shows; give each "
            "record of the manifest an `object`, the same for all its views (docs/data.md)"
        )
    return record.object


def group_starts(source: DataSource, step: str) -> list[int]:
    """The index of each group's first record. Reads all records; raises UsageError as `groups` does."""
    starts, index = [], 0
    for views in groups(map(source.record, range(len(source))), step):
        starts.append(index)
        index += len(views)
    return starts
