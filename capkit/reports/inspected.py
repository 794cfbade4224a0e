"""inspect.json, inspect.html, contact.png and the terminal's table: what is in a data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from capkit.reports.charts import histogram
from capkit.reports.page import chart_row
from capkit.reports.samples import Samples, card
from capkit.reports.shell import OPENED, page_html, render, thumbnail
from capkit.utils.files import atomic_path, write_atomically, write_json

TILE, COLUMNS = 96, 10  # of the contact sheet
NUM_LISTED = 20
Named = tuple[str, np.ndarray]  # a picture (H W 3, uint8) and what it is called


@dataclass(frozen=True)
class Inspected:
    """What was found of a data set.

    `splits` has the table's rows by split, `findings` what is wrong or odd, each with examples. By split, `lengths` are
    the tokens of each caption, `sides` the longer side of each opened picture. Training keeps `max_length` tokens.
    `alike` are pictures that look alike, two and two; `notes` say what was not looked at.
    """

    title: str
    splits: Mapping[str, Mapping[str, Any]]
    findings: Sequence[tuple[str, Sequence[str]]]
    repeated: Sequence[tuple[str, int]]
    lengths: Mapping[str, np.ndarray]
    sides: Mapping[str, Sequence[int]]
    max_length: int
    samples: Samples
    tiles: Sequence[np.ndarray]
    alike: Sequence[Sequence[Named]]
    notes: Sequence[str]


def write_inspected(folder: Path, found: Inspected) -> list[Path]:
    """Write the page and the numbers, and the contact sheet where a picture could be read. Returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    findings = [{"finding": told, "examples": list(examples)} for told, examples in found.findings]
    content = {"splits": found.splits, "findings": findings, "most repeated captions": dict(found.repeated)}
    write_json(folder / "inspect.json", content, ensure_ascii=False)
    write_atomically(folder / "inspect.html", _page(found))
    written = [folder / "inspect.json", folder / "inspect.html"]
    if found.tiles:
        with atomic_path(folder / "contact.png") as path:
            contact_sheet(found.tiles).save(path, format="PNG")
        written.append(folder / "contact.png")
    return written


def contact_sheet(tiles: Sequence[np.ndarray]) -> Image.Image:
    """Pictures (H W 3, uint8) side by side, each within TILE pixels, in rows of COLUMNS."""
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (min(len(tiles), COLUMNS) * (TILE + 4) + 4, rows * (TILE + 4) + 4), "white")
    for place, tile in enumerate(tiles):
        picture = Image.fromarray(tile)
        picture.thumbnail((TILE, TILE))
        left, top = (4 + (TILE + 4) * number for number in (place % COLUMNS, place // COLUMNS))
        sheet.paste(picture, (left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2))
    return sheet


def inspected_table(found: Inspected) -> Table:
    """A row for each number, a column for each split."""
    table = Table(box=SIMPLE_HEAD, title=Text(found.title))
    table.add_column("")
    for split in found.splits:
        table.add_column(Text(split), justify="right")
    for name in _names(found):
        table.add_row(Text(name), *(Text(_shown(own.get(name))) for own in found.splits.values()))
    return table


def _names(found: Inspected) -> list[str]:
    return list(dict.fromkeys(name for own in found.splits.values() for name in own))


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {count:,}" for name, count in value.items())
    return value if isinstance(value, str) else f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3f}"


def _page(found: Inspected) -> str:
    drawn = []
    for split, lengths in found.lengths.items():
        if len(lengths):
            top = int(np.quantile(lengths, 0.995)) + 1
            step = max(1, -(-top // 30))
            edges = list(range(0, top + step + 1, step))
            counts = np.histogram(lengths, edges)[0].tolist()
            level = found.max_length if found.max_length <= 2 * top else None
            drawn.append(histogram(f"tokens a caption, {split}", edges, counts, "tokens", level))
    for split, sides in found.sides.items():
        if sides:
            heights, ends = np.histogram(sides, bins=min(24, len(set(sides))))
            drawn.append(histogram(f"longer side, {split}", ends.round(1).tolist(), heights.tolist(), "pixels"))
    body = render(
        "inspected.html",
        splits=list(found.splits),
        rows=[(name, [_shown(own.get(name)) for own in found.splits.values()]) for name in _names(found)],
        findings=[(told, list(examples[:NUM_LISTED]), len(examples)) for told, examples in found.findings],
        repeated=[(text, f"{count:,}") for text, count in found.repeated],
        charts=Markup(chart_row(drawn) if drawn else ""),
        max_length=found.max_length,
        notes=found.notes,
        has_captions=any(len(lengths) for lengths in found.lengths.values()),
        alike=[[(name, thumbnail(image, OPENED)) for name, image in pair] for pair in found.alike],
        cards=[Markup(card(row, image)) for row, image in found.samples],
    )
    return page_html(found.title, body)
