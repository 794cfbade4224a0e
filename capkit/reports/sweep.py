"""sweep.json and sweep.html: a split's numbers under each bin of a condition."""

import html
from collections.abc import Mapping
from pathlib import Path

from capkit.reports.charts import line_chart
from capkit.reports.numbers import metric_table, or_null
from capkit.reports.page import chart_row
from capkit.reports.shell import page_html
from capkit.utils.files import write_atomically, write_json

NOTE = "A column for each bin that captions were asked for, from the lowest to the highest. All are in sweep.json."


def write_sweep(folder: Path, title: str, name: str, numbers: Mapping[int, Mapping[str, float]]) -> None:
    """The two files of a sweep over condition `name`; a number that does not exist is null in the first."""
    rows = [{name: number, "numbers": or_null(own)} for number, own in numbers.items()]
    write_json(folder / "sweep.json", rows)
    write_atomically(folder / "sweep.html", _page(title, name, numbers))


def _page(title: str, name: str, numbers: Mapping[int, Mapping[str, float]]) -> str:
    metrics = {
        number: {key.split("/")[1]: value for key, value in own.items() if key.count("/") == 1}
        for number, own in numbers.items()
    }
    shown = dict.fromkeys(key for own in metrics.values() for key in own)
    drawn = [
        line_chart(key, {"": [(number, own[key]) for number, own in metrics.items() if key in own]}, name)
        for key in shown
    ]
    table = metric_table({f"{name} {number}/{key}": own[key] for number, own in metrics.items() for key in own})
    return page_html(title, f"<p class='note'>{html.escape(NOTE)}</p>{table}{chart_row(drawn)}")
