"""What metrics by claims share: pictures as evidence, a benchmark's names of pictures, askers of their parts."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from capkit.errors import UsageError
from capkit.llm.asker import Asker
from capkit.llm.base import Picture
from capkit.metrics.embedding_metric import picture_of

_SHOWN = 3


def askers_of(*parts: Any) -> dict[str, Asker]:
    """The askers of a metric's parts, by their names."""
    return {name: asker for part in parts for name, asker in getattr(part, "askers", {}).items()}


def picture_of_row(row: Mapping[str, Any]) -> Callable[[], Picture] | None:
    """What reads a row's picture, with its metadata; None where the metric was given no pictures."""
    if "image" not in row:
        return None
    metadata = {name: value for name, value in row.items() if name != "image"}
    return lambda: Picture(np.asarray(picture_of(row["image"])), metadata)


def rows_by_name(names: Collection[str], keys: Sequence[str], file: str) -> list[str]:
    """The name in a benchmark's file of each captioned picture: complete, or without folders and extension.

    Raises UsageError for pictures that the file does not have, or has under two names.
    """
    known: dict[str, set[str]] = {}
    for name in names:
        for spelling in (name, _stem(name)):
            known.setdefault(spelling, set()).add(name)
    found = [{key} if key in names else known.get(key) or known.get(_stem(key), set()) for key in keys]
    strangers = [key for key, fitting in zip(keys, found, strict=True) if len(fitting) != 1]
    if strangers:
        raise UsageError(
            f"expected captions of the pictures of {file}, got {len(strangers)} of {len(keys)} of none or several of "
            f"them: {', '.join(strangers[:_SHOWN])}; it has {', '.join(list(names)[:_SHOWN])} ...; name pictures as it "
            "does, and leave out others"
        )
    return [next(iter(fitting)) for fitting in found]


def _stem(name: str) -> str:
    return PurePosixPath(name).stem
