"""frontier.json and frontier.html: CIDEr against R@1 as guidance grows, and other runs beside it."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from capkit.reports.charts import path_chart
from capkit.reports.numbers import or_null
from capkit.reports.page import chart_row
from capkit.reports.shell import page_html
from capkit.utils.files import write_atomically, write_json

OTHER_COLUMNS = ("length", "repetition")
NOTE = "One row for each scale of guidance, and for each other run, which is decoded without."
MEANINGS = {
    "r1": "R@1 (names in r1): share of captions by which the encoder finds their image among those of its pool.",
    "length": "Length in words.",
    "repetition": "Repetition: share of its word pairs that it has said before.",
}


@dataclass(frozen=True)
class Place:
    """One decoding of the split: its label, its scale of guidance (None: another run, without), and all numbers."""

    label: str
    scale: float | None
    numbers: Mapping[str, float]


def write_frontier(folder: Path, name: str, places: Sequence[Place]) -> None:
    """The two files of a run; a number that does not exist is null in the first."""
    rows = [asdict(place) for place in places]
    for row in rows:
        row["numbers"] = or_null(row["numbers"])
    write_json(folder / "frontier.json", rows)
    write_atomically(folder / "frontier.html", _page(name, places))


def recalls(places: Sequence[Place]) -> list[str]:
    """Names of the R@1 numbers that all places have, without controls."""
    shared = set.intersection(*(set(place.numbers) for place in places))
    return sorted(name for name in shared if name.endswith("_r1") and "/" not in name)


def frontier_charts(places: Sequence[Place]) -> list[str]:
    """CIDEr against each R@1: guided decodings joined by scale, other runs as points of their own."""
    if not all("cider" in place.numbers for place in places):
        return []
    guided = [place for place in places if place.scale is not None]
    return [
        path_chart(
            f"CIDEr, by {name}",
            [(place.numbers[name], place.numbers["cider"]) for place in guided],
            [place.label for place in guided],
            name,
            others={
                place.label: (place.numbers[name], place.numbers["cider"]) for place in places if place.scale is None
            },
        )
        for name in recalls(places)
    ]


def _page(name: str, places: Sequence[Place]) -> str:
    columns = [column for column in ("cider", *recalls(places), *OTHER_COLUMNS) if column in places[0].numbers]
    head = "".join(f"<th>{html.escape(column)}</th>" for column in ("scale or run", *columns))
    rows = "".join(
        f"<tr><td>{html.escape(place.label)}</td>"
        + "".join(
            f"<td>{place.numbers[column]:.3f}</td>" if column in place.numbers else "<td></td>" for column in columns
        )
        + "</tr>"
        for place in places
    )
    meanings = [text for end, text in MEANINGS.items() if any(column.endswith(end) for column in columns)]
    note = " ".join([NOTE, *meanings, "All numbers are in frontier.json."])
    body = f"<p class='note'>{html.escape(note)}</p>{chart_row(frontier_charts(places))}"
    return page_html(f"{name}: guidance", f"{body}<table><tr>{head}</tr>{rows}</table>")
