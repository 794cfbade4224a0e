"""compare.json, compare.html and the terminal's table: runs side by side on the same pictures."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from capkit.reports.about import shown_value
from capkit.reports.numbers import KEY, explained, or_null, shown_number
from capkit.reports.shell import OPENED, page_html, render, thumbnail
from capkit.run.about import read_starts
from capkit.run.changes import FREE_KEYS, flatten, is_under
from capkit.run.folder import RunFolder
from capkit.types import Row
from capkit.utils.files import write_atomically, write_json

NUM_APART, NUM_FIRST = 9, 6  # pictures: where captions differ most in score, and the first of the split


@dataclass(frozen=True)
class Difference:
    """A later run's number minus the first run's, with the ends of its paired interval."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval is on one side of 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Compared:
    """Runs by name, the first of which the others are compared with.

    `rows` are of the same pictures in the same order, `scores` each caption's CIDEr, by run; without any, none.
    """

    split: str
    confidence: float
    folders: Mapping[str, RunFolder]
    numbers: Mapping[str, Mapping[str, float]]
    differences: Mapping[str, Mapping[str, Difference]]
    rows: Mapping[str, list[Row]]
    scores: Mapping[str, np.ndarray]

    @property
    def num_pictures(self) -> int:
        return len(next(iter(self.rows.values())))

    def names(self) -> list[str]:
        """Names of all numbers, those that matter first."""
        found = list(dict.fromkeys(name for own in self.numbers.values() for name in own))
        return [*(name for name in KEY if name in found), *(name for name in found if name not in KEY)]


def write_compared(folder: Path, found: Compared, image: Callable[[str], np.ndarray]) -> None:
    """The two files; a number that does not exist is null in the first."""
    content = {
        "split": found.split,
        "confidence": found.confidence,
        "pictures": found.num_pictures,
        "runs": {name: str(run.path) for name, run in found.folders.items()},
        "numbers": {name: or_null(own) for name, own in found.numbers.items()},
        "differences": {
            name: {key: or_null(asdict(one)) for key, one in own.items()} for name, own in found.differences.items()
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "compare.json", content, ensure_ascii=False)
    write_atomically(folder / "compare.html", _page(found, image))


def compare_table(found: Compared) -> Table:
    """The numbers that matter or differ clearly, a line each: every run's, and the differences with their intervals."""
    table = Table(box=SIMPLE_HEAD, title=f"{found.num_pictures:,} pictures of {found.split}")
    table.add_column("metric", no_wrap=True)
    first, *others = found.numbers
    table.add_column(Text(first), justify="right")
    for name in others:
        table.add_column(Text(name), justify="right")
        table.add_column(Text("minus the first"), justify="right")
    for key in found.names():
        differences = [found.differences[name].get(key) for name in others]
        if key not in KEY and not any(one is not None and one.is_clear for one in differences):
            continue
        cells = [Text(shown_number(key, found.numbers[first].get(key)))]
        for name, one in zip(others, differences, strict=True):
            told = "" if one is None or math.isnan(one.low) else f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
            cells.append(Text(shown_number(key, found.numbers[name].get(key))))
            cells.append(Text(told, style="bold" if one is not None and one.is_clear else ""))
        table.add_row(Text(key), *cells)
    return table


def config_differences(found: Compared) -> list[tuple[str, list[str]]]:
    """Keys whose values are not the same in all runs, without where and how fast they ran."""
    flat = [flatten(run.config() or {}) for run in found.folders.values()]
    free = ("task", "ckpt", *FREE_KEYS)
    keys = sorted(set().union(*flat))
    lines = [(key, [_value(own, key) for own in flat]) for key in keys if not is_under(key, free)]
    return [(key, values) for key, values in lines if len(set(values)) > 1]


def _value(flat: Mapping[str, Any], key: str) -> str:
    return "–" if flat.get(key) == {} else shown_value(flat, key)


def _page(found: Compared, image: Callable[[str], np.ndarray]) -> str:
    names = found.names()
    chosen = _chosen(found)
    body = render(
        "compare.html",
        runs=[(name, _started(run), str(run.path)) for name, run in found.folders.items()],
        key=[_line(found, name) for name in names if name in KEY],
        others=[_line(found, name) for name in names if name not in KEY],
        share=f"{100 * found.confidence:g}",
        pictures=f"{found.num_pictures:,}",
        split=found.split,
        apart=[_card(found, place, image) for place in chosen["apart"]],
        first=[_card(found, place, image) for place in chosen["first"]],
        config=config_differences(found),
    )
    return page_html(" against ".join(found.folders), body)


def _started(run: RunFolder) -> str:
    starts = read_starts(run.path)
    return f"{starts[0]['started']}: {starts[0]['command']}" if starts else ""


def _line(found: Compared, key: str) -> dict[str, Any]:
    cells = []
    for name, own in found.numbers.items():
        one = found.differences.get(name, {}).get(key)
        told = "" if one is None or math.isnan(one.low) else f"{one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
        cells.append((shown_number(key, own.get(key)), told, one is not None and one.is_clear))
    return {"name": key, "cells": cells, "explained": explained(key)}


def _chosen(found: Compared) -> dict[str, list[int]]:
    """Pictures where the best and the worst caption differ most in score, and the first ones of the others."""
    apart: list[int] = []
    if found.scores:
        scores = np.stack(list(found.scores.values()))
        spread = scores.max(0) - scores.min(0)
        apart = [int(place) for place in np.argsort(-spread, kind="stable")[:NUM_APART] if spread[place] > 0]
    first = [place for place in range(found.num_pictures) if place not in apart][:NUM_FIRST]
    return {"apart": apart, "first": first}


def _card(found: Compared, place: int, image: Callable[[str], np.ndarray]) -> Markup:
    row = next(iter(found.rows.values()))[place]
    scores = {name: float(own[place]) for name, own in found.scores.items()}
    captions = [
        (name, own[place]["caption"], f"CIDEr {scores[name]:.2f}" if scores else "", _is_best(scores, name))
        for name, own in found.rows.items()
    ]
    picture = thumbnail(image(row["key"]), OPENED)
    card = render("compared.html", key=row["key"], picture=picture, captions=captions, references=row["references"])
    return Markup(card)


def _is_best(scores: Mapping[str, float], name: str) -> bool:
    """Whether a run's caption scores above another's and below none."""
    return bool(scores) and scores[name] == max(scores.values()) > min(scores.values())
