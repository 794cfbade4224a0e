"""judged.html: what models judged of captions: the numbers, the hardest pictures, their claims coloured by verdict."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capkit.metrics.judged import Judged, JudgedMetric, Shown
from capkit.metrics.scoring import columns_of, scored_rows
from capkit.reports.shell import page_html, thumbnail
from capkit.types import Row
from capkit.utils.files import write_atomically

PAGE = "judged.html"
NUM_HARDEST, NUM_FAILED = 12, 20
_STYLE = (
    ".mark { display: inline-block; margin: .1rem .2rem; padding: 0 .35rem; border-radius: .3rem; font-size: 13px } "
    ".right { background: var(--good-soft) } .wrong { background: var(--bad-soft); text-decoration: underline } "
    ".open { background: var(--line) } .samples { grid-template-columns: 1fr } "
    "@media (max-width: 600px) { .sample { display: block } } td { white-space: nowrap }"
)
_LEGEND = (
    "<span class='mark right'>right</span> <span class='mark wrong'>wrong</span> "
    "<span class='mark open'>neither, or not known</span>"
)


def write_judged_page(
    folder: Path,
    rows: Sequence[Row],
    metrics: Mapping[str, Any],
    numbers: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    image: Callable[[str], np.ndarray] | None = None,
) -> Path | None:
    """Write the page of judged metrics that have something to show; None without any. On rank 0, after `score_rows`.

    `numbers` and `intervals` are by the metrics' own names, without a split.
    """
    sections = []
    for metric in metrics.values():
        if isinstance(metric, JudgedMetric) and (scored := scored_rows(rows, metric)):
            columns = metric.complete(*columns_of(scored, image))
            judged = metric.judged(*columns)
            shown = [metric.shown(found) for found in judged]
            if any(item is not None for item in shown):
                sections.append(_section(metric.name, columns, judged, shown, numbers, intervals))
    if not sections:
        return None
    page = page_html("Judged captions", f"<p class='note'>{_LEGEND}</p>{''.join(sections)}", _STYLE)
    write_atomically(folder / PAGE, page)
    return folder / PAGE


def _section(
    name: str,
    columns: tuple[list[str], list[list[str]], list[dict[str, Any]]],
    judged: Sequence[Judged],
    shown: Sequence[Shown | None],
    numbers: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
) -> str:
    order = sorted((item.score, place) for place, item in enumerate(shown) if item is not None)
    cases = [_case(place, columns, shown[place]) for _, place in order[:NUM_HARDEST]]
    failed = [place for place, found in enumerate(judged) if found.num_failed]
    reasons = [f"{columns[2][place]['key']}: {_reason(judged[place])}" for place in failed[:NUM_FAILED]]
    lost = "".join(f"<li>{html.escape(reason)}</li>" for reason in reasons)
    rest = f"<p class='note'>and {len(failed) - NUM_FAILED} more</p>" if len(failed) > NUM_FAILED else ""
    return (
        f"<h2>{html.escape(name)}</h2>{_table(name, numbers, intervals)}"
        f"<h2>The {len(cases)} hardest of {len(order)} pictures</h2><div class='samples'>{''.join(cases)}</div>"
        + (f"<h2>Failed: {len(failed)}</h2><ul>{lost}</ul>{rest}" if failed else "")
    )


def _reason(found: Judged) -> str:
    """Why a picture's judgements failed, or the first one that says so; else how many did."""
    parts = [found.detail, *found.detail.get("questions", ())]
    said = next((part[name] for part in parts for name in ("error", "failure") if part.get(name)), None)
    count = f"{found.num_failed} of {found.num_asked} judgements"
    return count if said is None else str(said) if found.num_asked == 1 else f"{count}, such as {said}"


def _table(name: str, numbers: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]) -> str:
    own = {key: value for key, value in numbers.items() if key == name or key.startswith((f"{name}_", f"{name}/"))}
    rows = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{_number(value)}</td><td>{_interval(intervals.get(key))}</td></tr>"
        for key, value in own.items()
    )
    return f"<table><tr><th>number</th><th></th><th>95 % interval</th></tr>{rows}</table>"


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.4g}"


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"{_number(ends[0])} to {_number(ends[1])}"


def _case(place: int, columns: tuple[list[str], list[list[str]], list[dict[str, Any]]], shown: Shown | None) -> str:
    assert shown is not None
    captions, references, metadata = columns
    picture, key = metadata[place].get("image"), html.escape(str(metadata[place]["key"]))
    drawn = f"<img src='{thumbnail(np.asarray(picture()))}' alt='{key}'>" if callable(picture) else ""
    marks = "".join(f"<span class='mark {kind}'>{html.escape(text)}</span>" for text, kind in shown.marks)
    reference = f"<ul><li>{html.escape(references[place][0])}</li></ul>" if references[place] else ""
    caption = html.escape(captions[place]) or "<i>(empty)</i>"
    return (
        f"<div class='sample'>{drawn}<div><div class='caption'>{caption}</div>{marks}{reference}"
        f"<div class='note'>{key}: {_number(shown.score)}</div></div></div>"
    )
