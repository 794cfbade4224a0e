"""Mined neighbours of images, as hard negatives: the lines of neighbors.jsonl (`capkit/mining/neighbors.py`)."""

import json
from typing import Any

from capkit.errors import UsageError


def read_neighbors(file: str, count: int) -> dict[str, list[str]]:
    """The first `count` neighbours of each image, nearest first; mining may have found fewer for some.

    Raises UsageError for a file that cannot be read, a line of another form, and where no image has that many.
    """
    try:
        with open(file, encoding="utf-8") as lines:
            rows = [_row(file, number, line, count) for number, line in enumerate(lines, 1) if line.strip()]
    except OSError as error:
        raise UsageError(
            f"neighbors_file={file} cannot be read ({error.strerror}); give the neighbors.jsonl of `capkit mine`"
        ) from error
    longest = max((len(neighbors) for _, neighbors in rows), default=0)
    if longest < count:
        raise UsageError(f"num_neighbors={count} is more than {file} holds of any image, which is {longest}")
    return dict(rows)


def _row(file: str, number: int, line: str, count: int) -> tuple[str, list[str]]:
    try:
        row: Any = json.loads(line)
        key, neighbors = row["key"], row["neighbors"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f'{file}, line {number}: wanted {{"key": KEY, "neighbors": [KEY, ...]}}; got {line.strip()[:80]!r}'
        ) from error
    return str(key), [str(neighbor) for neighbor in neighbors[:count]]
