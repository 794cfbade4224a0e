"""report.html of a run: captions of held-out pictures, the numbers, and curves. Opens offline."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from capkit.errors import UsageError
from capkit.reports.about import difference_section, facts, run_title
from capkit.reports.charts import Point, line_chart
from capkit.reports.numbers import Intervals, columns_of, measured_numbers, metric_table, shown_number, tiles
from capkit.reports.samples import Samples, samples_section
from capkit.reports.shell import page_html, render
from capkit.run.folder import RunFolder, read_object
from capkit.run.metric_names import THROUGHPUT
from capkit.utils.files import write_atomically

HEADLINES = ("fact_f1", "cider", "text_r1", "t2i_r1", "auroc")  # the first one that a run has is drawn next to the loss
INTERVALS = "intervals.json"
CAPTIONER_NOTE = (
    "untrained: the captioner before its first step. shuffled: each picture with the caption written for another one. "
    "Beside a number: its 95 % bootstrap interval over pictures, where it has one."
)


def charts(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """One chart per name: its training and validation values by step."""
    drawn = [line_chart(name, {split: curve(rows, f"{split}/{name}") for split in ("train", "val")}) for name in names]
    return chart_row(drawn)


def chart_row(drawn: Sequence[str]) -> str:
    return f"<div class='charts'>{''.join(drawn)}</div>"


def curve(rows: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    """(step, value) of each row with this number."""
    return [(row["step"], row[name]) for row in rows if isinstance(row.get(name), int | float)]


def validated(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names that validation logged, except the loss."""
    names = {key.removeprefix("val/") for row in rows for key in row if key.startswith("val/")}
    return sorted(names - {"loss"})


def write_report(
    folder: RunFolder,
    title: str,
    samples: Samples,
    note: str = CAPTIONER_NOTE,
    samples_note: str = "Bold: what it wrote. Listed: the references.",
    section: str = "",
) -> None:
    """Write report.html. `note` explains the numbers, `samples_note` the text beside a picture.

    `section` is HTML of its own, put between the samples and the numbers.
    """
    rows = folder.current_rows()
    names = validated(rows)
    headline = [name for name in HEADLINES if name in names][:1]
    body = samples_section(samples, samples_note)
    body += section + numbers_section(folder, note)
    body += f"<h2>Training</h2>{charts(rows, ['loss', *headline])}" if curve(rows, "train/loss") else ""
    body += more_curves(rows, [name for name in names if name not in headline])
    write_page(folder, title, body + throughput_section(folder))


def more_curves(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    drawn = charts(rows, names)
    told = f"{len(names)} more curve{'s' if len(names) > 1 else ''}"
    return f"<details><summary>{told}</summary>{drawn}</details>" if "<svg" in drawn else ""


def numbers_section(folder: RunFolder, note: str) -> str:
    """The final numbers as a table, with their intervals and a note on how to read them; empty without any."""
    numbers = measured_numbers(folder)
    if not columns_of(numbers):
        return ""
    return render("numbers_section.html", table=Markup(metric_table(numbers, intervals_of(folder))), note=note)


def intervals_of(folder: RunFolder) -> Intervals:
    """Bootstrap intervals that the run's evaluation left, by the names of numbers; none where it left none."""
    path = folder.path / INTERVALS
    if not path.exists():
        return {}
    found = read_object(path, "delete it, and evaluate again")
    if not all(isinstance(ends, list) and len(ends) == 2 for ends in found.values()):
        raise UsageError(f"{path}: expected [low, high] for each name; delete it, and evaluate again")
    return {name: (float(low), float(high)) for name, (low, high) in found.items()}


def throughput_section(folder: RunFolder) -> str:
    """What callback=throughput measured: a table of the whole run, and curves. Empty without it."""
    numbers = {key: value for key, value in folder.metrics().items() if key in THROUGHPUT}
    if not numbers:
        return ""
    names = {key: key.removeprefix("throughput/").replace("_", " ") for key in THROUGHPUT}
    measured = folder.current_rows()
    shares = {names[key]: curve(measured, key) for key in numbers if key.endswith("_share")}
    speed = {names[key]: curve(measured, key) for key in numbers if key.endswith("_per_second")}
    drawn = chart_row([line_chart("share of time, of matmul rate", shares), line_chart("speed", speed)])
    rows = [(names[key], shown_number(key, value)) for key, value in numbers.items()]
    return render("throughput.html", rows=rows, charts=Markup(drawn))


def write_page(folder: RunFolder, title: str, body: str, style: str = "") -> None:
    """Write report.html: what the run is, its first numbers, `body`, and what it changes of its parent's config."""
    numbers = measured_numbers(folder)
    head, foot = facts(folder)
    page = head + tiles(numbers, intervals_of(folder)) + body + difference_section(folder) + foot
    write_atomically(folder.report, page_html(run_title(folder, title), page, style))
