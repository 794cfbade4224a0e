"""report.html of a run: loss curves, a table of numbers, and held-out images with captions. Opens offline."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from capkit.reports.charts import Point, line_chart
from capkit.run.folder import RunFolder
from capkit.run.metric_names import THROUGHPUT
from capkit.types import Row
from capkit.utils.files import write_atomically

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #111827 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem } .note { color: #6b7280 }
table { border-collapse: collapse }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #e5e7eb; text-align: right }
th:first-child, td:first-child { text-align: left } .charts { display: flex; flex-wrap: wrap; gap: 1rem }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem }
.sample { display: flex; gap: .8rem; border: 1px solid #e5e7eb; border-radius: .5rem; padding: .7rem }
.sample img { width: 128px; height: 128px; object-fit: contain; image-rendering: auto; background: #f3f4f6 }
.prompt { flex: 1; white-space: pre-wrap; font-size: 13px; color: #4b5563 }
.caption { font-weight: 600 } .sample ul { margin: .3rem 0 0; padding-left: 1.1rem; color: #4b5563; font-size: 13px }
"""
THUMBNAIL = 128
HEADLINES = ("fact_f1", "cider", "text_r1", "t2i_r1", "auroc")  # the first one that a run has is drawn next to the loss


def thumbnail(image: np.ndarray) -> str:
    """An image (H W 3, uint8) as a data URL of at most 128 pixels a side."""
    picture = Image.fromarray(image)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def metric_table(numbers: Mapping[str, float]) -> str:
    """Table of metrics (rows) by the captioner measured (columns): `test/cider`, `test/shuffled/cider` ..."""
    columns: dict[str, dict[str, float]] = {}
    for key, value in numbers.items():
        split, *middle, name = key.split("/")
        if split != "train":
            columns.setdefault("/".join([split, *middle]), {})[name] = value
    names = list(dict.fromkeys(name for values in columns.values() for name in values))
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{_number(c.get(name))}</td>" for c in columns.values())
        for name in names
    )
    return f"<table><tr><th>metric</th>{head}</tr>{body}</table>"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4f}" if abs(value) < 100 else f"{value:,.0f}"


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


def sample(row: Row, image: np.ndarray) -> str:
    """One held-out example: its picture, or the prompt where it has one, what was written, and the references."""
    references = "".join(f"<li>{html.escape(reference)}</li>" for reference in row["references"])
    caption = html.escape(row["caption"]) or "<i>(empty)</i>"
    shown = f"<img src='{thumbnail(image)}' alt='{html.escape(row['key'])}'>"
    if (prompt := row.get("metadata", {}).get("prompt")) is not None:
        shown = f"<div class='prompt'>{html.escape(prompt)}</div>"
    return f"<div class='sample'>{shown}<div><div class='caption'>{caption}</div><ul>{references}</ul></div></div>"


CAPTIONER_NOTE = (
    "untrained: the captioner before its first step. shuffled: each image with the caption written for another one. "
    "BLEU and ROUGE-L are fractions, CIDEr is in its own unit (10 at most); the loss is in nats per token."
)


def write_report(
    folder: RunFolder,
    title: str,
    samples: Sequence[tuple[Row, np.ndarray]],
    note: str = CAPTIONER_NOTE,
    samples_note: str = "Bold: generated",
    section: str = "",
) -> None:
    """Write report.html. `note` explains the numbers, `samples_note` the bold text below an image.

    `section` is HTML of its own, put between the samples and the curves that few look at.
    """
    rows = folder.current_rows()
    names = validated(rows)
    headline = [name for name in HEADLINES if name in names][:1]
    body = f"<h2>Curves</h2>{charts(rows, ['loss', *headline])}" if rows else ""
    body += numbers_section(folder, note)
    body += f"<h2>Held-out images</h2><p class='note'>{html.escape(samples_note)}. Listed: references.</p>"
    body += f"<div class='samples'>{''.join(sample(row, image) for row, image in samples)}</div>{section}"
    others = [name for name in names if name not in headline]
    body += f"<details><summary>More curves</summary>{charts(rows, others)}</details>" if others else ""
    write_page(folder, title, body)


def numbers_section(folder: RunFolder, note: str) -> str:
    """The final numbers as a table, with a note on how to read them; and the run's throughput if it was measured."""
    numbers = {key: value for key, value in folder.metrics().items() if key not in THROUGHPUT}
    section = f"<h2>Numbers</h2>{metric_table(numbers)}<p class='note'>{html.escape(note)}</p>"
    return section + throughput_section(folder)


def throughput_section(folder: RunFolder) -> str:
    """What callback=throughput measured: a table of the whole run, and curves. Empty without it."""
    numbers = {key: value for key, value in folder.metrics().items() if key in THROUGHPUT}
    if not numbers:
        return ""
    names = {key: key.removeprefix("throughput/").replace("_", " ") for key in THROUGHPUT}
    rows = "".join(f"<tr><td>{names[key]}</td><td>{_number(value)}</td></tr>" for key, value in numbers.items())
    measured = folder.current_rows()
    shares = {names[key]: curve(measured, key) for key in numbers if key.endswith("_share")}
    speed = {names[key]: curve(measured, key) for key in numbers if key.endswith("_per_second")}
    drawn = chart_row([line_chart("share of time, of matmul rate", shares), line_chart("speed", speed)])
    return f"<h2>Throughput</h2><table><tr><th>of the run</th><th></th></tr>{rows}</table>{drawn}"


def write_page(folder: RunFolder, title: str, body: str, style: str = "") -> None:
    """Write report.html: a heading with training time and files of numbers, then `body`."""
    seconds = folder.metrics().get("train/seconds")
    trained = f"Trained for {seconds:,.0f} s. " if seconds is not None else ""
    head = f"<h1>{html.escape(title)}</h1>"
    head += f"<p class='note'>{trained}All numbers: metrics.json; curves: metrics.jsonl.</p>"
    page = f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"
    write_atomically(folder.report, f"{page}<style>{STYLE}{style}</style><body>{head}{body}</body></html>")
