"""The curves of section growth, from the files that `--out` kept.

python -m benchmarks.speed.growth_plot FILE [FILE ...] --plot docs/speed_growth.svg

Prints a table of milliseconds and GiB, a row for each value of an axis.
"""

import argparse
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.speed.growth import AXES, WORKS
from capkit.reports.charts import HEIGHT, WIDTH, line_chart

Rows = Iterable[Mapping[str, Any]]
_LABELS = {"images": "images", "samples": "samples of an image", "length": "tokens", "decoder": "million parameters"}


def cells(rows: Rows) -> dict[tuple[str, int, str], Mapping[str, Any]]:
    """Rows of section growth by axis, value and work."""
    found = {}
    for row in rows:
        if row["section"] == "growth":
            match = re.fullmatch(r"(.+), (\w+) (\d+)( M)?", row["work"])
            assert match is not None
            found[match[2], int(match[3]), match[1]] = row
    return found


def table(rows: Rows) -> str:
    """Markdown: ms (GPU busy ms), GiB of each work."""
    found = cells(rows)
    lines = [f"| axis | {' | '.join(WORKS)} |", "| --- |" + " --- |" * len(WORKS)]
    for axis in AXES:
        for value in sorted({key[1] for key in found if key[0] == axis}):
            words = [_cell(found.get((axis, value, work))) for work in WORKS]
            lines.append(f"| {axis} {value:,}{' M' if axis == 'decoder' else ''} | {' | '.join(words)} |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["out_of_memory"]:
        return "out of memory"
    busy = "" if row["busy_ms"] is None else f" (busy {row['busy_ms']:,.0f})"
    return f"{row['ms']:,.0f} ms{busy}, {row['gib']:.1f} GiB"


def plot(rows: Rows) -> str:
    """SVG: time above memory, a column for each axis."""
    found = cells(rows)
    drawn = []
    for column, (axis, label) in enumerate(_LABELS.items()):
        for line, (name, unit) in enumerate((("ms", "ms"), ("gib", "GiB"))):
            series = {
                work: sorted((value, row[name]) for (at, value, of), row in found.items() if (at, of) == (axis, work))
                for work in WORKS
            }
            chart = line_chart(f"{unit} by {label}", series, label)
            drawn.append((column, line, chart))
    placed = [
        chart.replace("<svg ", f"<svg x='{column * WIDTH}' y='{line * HEIGHT}' height='{HEIGHT}' ", 1)
        for column, line, chart in drawn
    ]
    whole = f"width='{len(_LABELS) * WIDTH}' height='{2 * HEIGHT}'"
    back = "<rect width='100%' height='100%' fill='white'/>"
    return f"<svg xmlns='http://www.w3.org/2000/svg' {whole} font-family='sans-serif'>{back}{''.join(placed)}</svg>\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--plot", type=Path, required=True)
    args = parser.parse_args()
    rows = [row for file in args.files for row in json.loads(file.read_text())["rows"]]
    print(table(rows))
    args.plot.write_text(plot(rows))


if __name__ == "__main__":
    main()
