"""Captions with the pictures that an encoder finds nearest, the right one framed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from capkit.reports.shell import render, thumbnail

NOTE = (
    "Held-out captions, and the pictures that are nearest to each, from the nearest on; green: the one that the "
    "caption was written about, with its place where it is not among them. Among {pool:,} pictures."
)


@dataclass(frozen=True)
class Query:
    """A caption, the keys of the pictures nearest to it, its own picture's key, and the place of that one from 1 on."""

    text: str
    nearest: Sequence[str]
    own: str
    place: int


def retrieval_grid(queries: Sequence[Query], pool: int, image: Callable[[str], np.ndarray]) -> str:
    """A row of pictures for each caption; empty without any."""
    if not queries:
        return ""
    rows = [
        {
            "text": query.text,
            "place": query.place,
            "found": query.own in query.nearest,
            "pictures": [(key, thumbnail(image(key)), key == query.own) for key in query.nearest],
            "own": (query.own, thumbnail(image(query.own))),
        }
        for query in queries
    ]
    return render("retrieval.html", rows=rows, note=NOTE.format(pool=pool))
