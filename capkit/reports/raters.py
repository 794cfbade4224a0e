"""report.html of a rater's run: loss and accuracy over time, numbers with intervals, pictures with their captions."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from capkit.reports.charts import line_chart
from capkit.reports.page import chart_row, curve, numbers_section, write_page
from capkit.reports.shell import thumbnail
from capkit.run.folder import RunFolder
from capkit.types import Row

_STYLE = """
.rated td { text-align: left; vertical-align: top } .rated td.number { text-align: right }
.rated img { width: 96px; height: 96px; object-fit: contain } tr.wrong td:not([rowspan]) { background: var(--bad-soft) }
"""
_NOTE = (
    "accuracy: of the pairs of captions of one picture that were graded differently, the share in which the better one "
    "has the higher score; .5 is chance. kendall: tau within a picture, the mean. length_correlation: of scores and "
    "numbers of words; that of grades beside it."
)


def write_raters_report(
    folder: RunFolder,
    title: str,
    intervals: Mapping[str, Sequence[float]],
    samples: Sequence[tuple[Row, np.ndarray]],
) -> None:
    """`intervals` have low and high by number; `samples` have key, captions, scores and grades."""
    rows: Any = folder.current_rows()
    drawn = [
        line_chart(name, {"training": curve(rows, trained), "held out": curve(rows, held)})
        for name, trained, held in (
            ("loss", "train/loss", "val/loss"),
            ("accuracy", "train/rating/accuracy", "val/accuracy"),
        )
    ]
    said = "Captions by their score, the best first; marked where one with a higher grade stands below."
    body = f"<h2>Rated pictures</h2><p class='note'>{said}</p><table class='rated'>"
    body += "<tr><th>picture</th><th class='text'>caption</th><th>score</th><th>grade</th></tr>"
    body += "".join(_rated(row, image) for row, image in samples) + f"</table>{numbers_section(folder, _NOTE)}"
    spans = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{low:.3f}</td><td>{high:.3f}</td></tr>"
        for name, (low, high) in intervals.items()
    )
    body += f"<h2>95 % intervals, over pictures</h2><table><tr><th></th><th>from</th><th>to</th></tr>{spans}</table>"
    body += f"<h2>Training</h2>{chart_row(drawn)}"
    write_page(folder, title, body, _STYLE)


def _rated(row: Row, image: np.ndarray) -> str:
    ranked = sorted(zip(row["scores"], row["grades"], row["captions"], strict=True), key=lambda item: -item[0])
    picture = f"<td rowspan='{len(ranked)}'><img src='{thumbnail(image)}' alt='{html.escape(row['key'])}'></td>"
    lines = []
    for place, (score, grade, caption) in enumerate(ranked):
        is_wrong = any(later > grade for _, later, _ in ranked[place + 1 :])
        cells = f"<td>{html.escape(caption)}</td><td class='number'>{score:+.2f}</td><td class='number'>{grade:g}</td>"
        lines.append(f"<tr{' class=wrong' if is_wrong else ''}>{'' if place else picture}{cells}</tr>")
    return "".join(lines)
