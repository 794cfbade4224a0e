"""cross.json, cross.html and the terminal's table: a matrix of runs and data sets for each metric."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from capkit.reports.numbers import or_null
from capkit.reports.shell import page_html
from capkit.utils.files import write_atomically, write_json

NOTE = (
    "Rows: runs. Columns: data sets. In brackets: {share:g} % bootstrap intervals over images, for numbers that follow "
    "from sums over images. {missing}: this data set cannot be scored by the metric. {undefined}: no caption had a "
    "score. The darker, the higher among the numbers of a matrix. All numbers are in cross.json."
)
MISSING, UNDEFINED = "–", "nan"
MATRIX_STYLE = ".matrix td { min-width: 9rem } .matrix td .interval { color: inherit }"  # on any shade


@dataclass(frozen=True)
class Cell:
    """One run on one data set: its checkpoint, all numbers, and intervals of those that have one."""

    run: str
    data: str
    ckpt: str
    numbers: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]


def write_matrix(folder: Path, name: str, cells: Sequence[Cell], confidence: float) -> None:
    """The two files of a matrix. A number that does not exist is null in the first; one that a cell lacks is absent."""
    rows = [asdict(cell) for cell in cells]
    for row in rows:
        row["numbers"] = or_null(row["numbers"])
        row["intervals"] = {key: list(ends) for key, ends in row["intervals"].items() if all(map(math.isfinite, ends))}
    content = {"confidence": confidence, "cells": rows}
    write_json(folder / "cross.json", content, ensure_ascii=False)
    write_atomically(folder / "cross.html", _page(name, cells, confidence))


def metrics_of(cells: Sequence[Cell]) -> list[str]:
    """Names of the numbers that any cell has, without controls."""
    return list(dict.fromkeys(name for cell in cells for name in cell.numbers if "/" not in name))


def matrix_table(cells: Sequence[Cell]) -> Table:
    """One line for each metric and run, one column for each data set."""
    datasets = _datasets(cells)
    table = Table(box=SIMPLE_HEAD)
    for name in ("metric", "run"):
        table.add_column(name, no_wrap=True)
    for data in datasets:
        table.add_column(Text(data, overflow="fold"))
    for name in metrics_of(cells):
        for number, run in enumerate(_runs(cells)):
            texts = [" ".join(filter(None, _shown(_cell(cells, run, data), name))) for data in datasets]
            table.add_row("" if number else name, *(Text(text, no_wrap=True) for text in [run, *texts]))
    return table


def _runs(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.run for cell in cells))


def _datasets(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.data for cell in cells))


def _cell(cells: Sequence[Cell], run: str, data: str) -> Cell:
    return next(cell for cell in cells if (cell.run, cell.data) == (run, data))


def _shown(cell: Cell, name: str) -> tuple[str, str]:
    """A cell's number and its interval, as text."""
    value = cell.numbers.get(name)
    if value is None:
        return MISSING, ""
    if not math.isfinite(value):
        return UNDEFINED, ""
    low, high = cell.intervals.get(name, (math.nan, math.nan))
    return f"{value:.3f}", "" if math.isnan(low) else f"[{low:.3f}, {high:.3f}]"


def _page(name: str, cells: Sequence[Cell], confidence: float) -> str:
    note = NOTE.format(share=100 * confidence, missing=MISSING, undefined=UNDEFINED)
    matrices = "".join(f"<h2>{html.escape(metric)}</h2>{_matrix(cells, metric)}" for metric in metrics_of(cells))
    checkpoints = {cell.run: cell.ckpt for cell in cells}
    listed = "".join(f"<li>{html.escape(run)}: {html.escape(path)}</li>" for run, path in checkpoints.items())
    body = f"<p class='note'>{html.escape(note)}</p>{matrices}<h2>Checkpoints</h2><ul>{listed}</ul>"
    return page_html(f"{name}: runs on data sets", body, MATRIX_STYLE)


def _matrix(cells: Sequence[Cell], metric: str) -> str:
    values = [value for cell in cells if math.isfinite(value := cell.numbers.get(metric, math.nan))]
    low, span = min(values, default=0.0), max(values, default=0.0) - min(values, default=0.0)
    datasets = _datasets(cells)
    head = "".join(f"<th>{html.escape(data)}</th>" for data in datasets)
    rows = ""
    for run in _runs(cells):
        rows += f"<tr><td>{html.escape(run)}</td>"
        for data in datasets:
            cell = _cell(cells, run, data)
            number, interval = _shown(cell, metric)
            value = cell.numbers.get(metric, math.nan)
            shade = 0.4 * (value - low) / span if span and math.isfinite(value) else 0.0
            rows += f"<td style='background: rgba(37, 99, 235, {shade:.2f})'>{number}"
            rows += f" <span class='interval'>{interval}</span></td>"
        rows += "</tr>"
    return f"<table class='matrix'><tr><th>run</th>{head}</tr>{rows}</table>"
