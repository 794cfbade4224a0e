"""report.html of a curate run: what each step did, what its models cost, why records failed, and records as they were
and are."""

import html
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capkit.reports.charts import COLOURS
from capkit.reports.shell import page_html, thumbnail
from capkit.utils.files import write_atomically

NUM_REASONS = 40
_SIDE = 128  # pixels of a picture's longer side on the page
_SAID = 200  # characters of what a model said
_ASKED = ("cached", "asked", "refused", "failed", "tokens_in", "tokens_out", "tokens_guessed", "money")
_HEADS = ("kept before", "asked", "refused", "failed", "tokens in", "tokens out", "guessed", "money")
STEPS_NOTE = (
    "In and out: records. Failures are listed with their reasons below; a record may go on without what failed. Counts "
    "are the step's own."
)
MODELS_NOTE = (
    "Kept before: answered from the store. Refused: replies of the wrong form, those included that were asked again. "
    "Failed: questions without an answer in the end. Tokens and money are of this run alone, in the currency of the "
    "price; guessed: answers whose tokens the server did not count."
)
FAILURES_NOTE = "Numbers and quoted words of a reason stand for others. The example is the first one."
SAMPLES_NOTE = (
    "Drawn by key from the records that were kept. Bold: a new caption; pale: one that was there before and still is. "
    "Small: score and source of a caption."
)
FINDINGS_NOTE = " Boxes are those of the findings, in the colour of their expert. + what was offered of the findings."
OWN_STYLE = """
.wide td, .wide th { text-align: left; vertical-align: top } .wide td.number, .wide th.number { text-align: right }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap } tr.total td { font-weight: 600 }
.wide small { color: var(--quiet) }
.said { font: 12px/1.35 ui-monospace, monospace; color: var(--quiet); overflow-wrap: anywhere }
@media (min-width: 700px) { .records { display: table; table-layout: fixed; width: 100% } }
@media (max-width: 699px) { .records tbody, .records tr, .records td { display: block }
  .records tr:first-child { display: none } .records td { border: 0 }
  .records tr { border-bottom: 1px solid var(--line) }
  .records td:not(:first-child)::before { content: attr(data-head); font-size: 13px; color: var(--quiet) } }
.records td { min-width: 10rem } .records td, .records th { padding: .5rem .6rem }
.records p { margin: 0 0 .45rem; overflow-wrap: anywhere } 
.records .same { color: var(--quiet) } .new { font-weight: 600 }
.picture { position: relative; display: inline-block; line-height: 0 }
.picture i { position: absolute; border: 2px solid; box-sizing: border-box }
.picture img { background: var(--soft); image-rendering: pixelated }
.key { font-size: 12px; color: var(--quiet); overflow-wrap: anywhere; margin-top: .3rem }
.none { color: var(--quiet); font-style: italic }
"""
Row = Mapping[str, Any]


@dataclass(frozen=True)
class CuratedSplit:
    """A split of a curate run: its merged report (`counts`, `models` by step and asker, `samples`) and its failures."""

    name: str
    report: Row
    failures: Iterable[Row]


def write_curated(
    path: Path, title: str, splits: Sequence[CuratedSplit], picture: Callable[[str], np.ndarray | None]
) -> None:
    """The page. `picture` gives the pixels (H W 3, uint8) of a sample's image; None if it cannot be read."""
    body = "".join(_section(split, picture, len(splits) > 1) for split in splits)
    write_atomically(path, page_html(title, body, OWN_STYLE))


def _section(split: CuratedSplit, picture: Callable[[str], np.ndarray | None], is_named: bool) -> str:
    counts, models, samples = split.report["counts"], split.report["models"], split.report["samples"]
    failures = list(split.failures)
    steps = [key.removesuffix("/records") for key in counts if key.endswith("/records")]
    kept = f"{counts['kept']:,} of {counts['records']:,} records were kept, {counts['failed']:,} failures."
    files = f"All: {split.name}.jsonl, {split.name}.failures.jsonl, {split.name}.report.json."
    section = f"<h2>{html.escape(split.name)}</h2>" if is_named else ""
    section += f"<p class='note'>{kept} {html.escape(files)}</p>"
    section += _steps_table(steps, counts, models, Counter(row["step"] for row in failures))
    section += _models_table(counts, models) + _failures_table(failures) + _samples_table(samples, picture)
    return section


def _steps_table(steps: Sequence[str], counts: Row, models: Row, failed: Mapping[str, int]) -> str:
    if not steps:
        return ""
    askers = tuple(f"{name}_" for name in models)
    lines, before = [], counts["records"]
    for step in steps:
        after = counts[f"{step}/records"]
        own = {
            key.removeprefix(f"{step}/"): value
            for key, value in counts.items()
            if key.startswith(f"{step}/") and key != f"{step}/records" and not key.startswith(askers)
        }
        told = ", ".join(f"{html.escape(name)} {_number(value)}" for name, value in own.items())
        lines.append([html.escape(step), *map(_number, (before, after, failed.get(step, 0))), told])
        before = after
    if others := sum(failed.values()) - sum(failed.get(step, 0) for step in steps):
        lines.append(["pictures for the manifest", _number(before), _number(counts["kept"]), _number(others), ""])
    table = _table(("step", "in", "out", "failures", "counts"), lines, numbers=(1, 2, 3))
    return f"<h2>Steps</h2>{table}<p class='note'>{STEPS_NOTE}</p>"


def _models_table(counts: Row, models: Row) -> str:
    """A line for each asker of each step, for each model that several of them ask, and for all."""
    if not models:
        return ""
    rows = {name: Counter({key: counts.get(f"{name}_{key}", 0) for key in _ASKED}) for name in models}
    priced = {name for name in models if f"{name}_money" in counts}
    shown = [key for key in _ASKED if any(f"{name}_{key}" in counts for name in models)]
    askers: dict[str, list[str]] = {}
    for name, model in models.items():
        askers.setdefault(str(model), []).append(name)

    def line(first: str, second: str, names: Sequence[str]) -> list[str]:
        added = {key: sum(rows[name][key] for name in names) for key in shown}
        cells = ["" if key == "money" and not priced & set(names) else _number(added[key], key) for key in shown]
        return [html.escape(first), html.escape(second), *cells]

    lines = [line(name, str(model), [name]) for name, model in models.items()]
    if len(askers) > 1:
        lines += [line("together", model, names) for model, names in askers.items() if len(names) > 1]
    if len(models) > 1:
        lines.append(line("all", "", list(models)))
    heads = [head for key, head in zip(_ASKED, _HEADS, strict=True) if key in shown]
    table = _table(("step / asks", "model", *heads), lines, range(2, 2 + len(heads)), len(lines) - len(models))
    return f"<h2>Questions and money</h2>{table}<p class='note'>{MODELS_NOTE}</p>"


def _failures_table(failures: Sequence[Row]) -> str:
    if not failures:
        return "<h2>Failures</h2><p class='note'>None.</p>"
    found: dict[tuple[str, str], list[Row]] = {}
    for row in failures:
        found.setdefault((row["step"], _kind(row["reason"])), []).append(row)
    lines = []
    for (step, _), rows in sorted(found.items(), key=lambda item: -len(item[1]))[:NUM_REASONS]:
        first = rows[0]
        said = "" if first["said"] is None else f"<div class='said'>{html.escape(_cut(first['said']))}</div>"
        example = f"<small>{html.escape(first['key'])}</small>{said}"
        lines.append([_number(len(rows)), html.escape(step), html.escape(_cut(first["reason"])), example])
    table = _table(("failures", "step", "reason", "example, and what was said"), lines, numbers=(0,))
    rest = f" {len(found) - NUM_REASONS:,} rarer kinds of reasons are in the file." if len(found) > NUM_REASONS else ""
    return f"<h2>Failures</h2>{table}<p class='note'>{FAILURES_NOTE}{rest}</p>"


def _kind(reason: str) -> str:
    """A reason without what differs from record to record."""
    return re.sub(r"\d+(?:\.\d+)?", "#", re.sub(r"'[^']*'|\"[^\"]*\"", "…", reason))


def _cut(text: str) -> str:
    return text if len(text) <= _SAID else f"{text[:_SAID]} …"


def _samples_table(samples: Sequence[Row], picture: Callable[[str], np.ndarray | None]) -> str:
    if not samples:
        return ""
    has_findings = any(sample["findings"] for sample in samples)
    experts = list(dict.fromkeys(item["expert"] for sample in samples for item in sample["findings"]))
    colours = {expert: COLOURS[place % len(COLOURS)] for place, expert in enumerate(experts)}
    lines = []
    for sample in samples:
        pixels = None if sample["image"] is None else picture(sample["image"])
        boxes = "".join(_box(item, colours[item["expert"]]) for item in sample["findings"] if item["box"] is not None)
        shown = f"<span class='none'>{'none' if sample['image'] is None else 'cannot be read'}</span>"
        if pixels is not None:
            height, width = (round(_SIDE * side / max(pixels.shape[:2])) for side in pixels.shape[:2])
            shown = f"<img src='{thumbnail(pixels)}' width={width} height={height} alt=''>"
            shown = f"<div class='picture'>{shown}{boxes}</div>"
        cells = [f"{shown}<div class='key'>{html.escape(sample['key'])}</div>"]
        if has_findings:
            cells.append(_findings(sample["findings"], colours))
        old, new = ({caption["text"] for caption in sample[when]} for when in ("before", "after"))
        cells.append(_captions(sample["before"], new, ""))
        cells.append(_captions(sample["after"], old, "new"))
        lines.append([cell or "<span class='none'>none</span>" for cell in cells])
    heads = ("picture", *(("findings",) if has_findings else ()), "captions before", "captions after")
    table = _table(heads, lines, widths=("150px", *(("22%",) if has_findings else ()), "auto", "auto"))
    note = SAMPLES_NOTE + (FINDINGS_NOTE if has_findings else "")
    return f"<h2>{len(samples)} records</h2><p class='note'>{note}</p>{table}"


def _box(item: Row, colour: str) -> str:
    x0, y0, x1, y1 = (100 * side for side in item["box"])
    place = f"left: {x0:.1f}%; top: {y0:.1f}%; width: {x1 - x0:.1f}%; height: {y1 - y0:.1f}%"
    return f"<i style='{place}; border-color: {colour}' title='{html.escape(item['text'])}'></i>"


def _findings(found: Sequence[Row], colours: Mapping[str, str]) -> str:
    """A line for each object with its attributes, which share its box, and for each text and tag."""
    lines: dict[tuple[Any, ...], list[Row]] = {}
    for place, item in enumerate(found):
        alone = place if item["box"] is None else -1
        lines.setdefault((item["expert"], str(item["box"]), alone), []).append(item)
    shown = ""
    for (expert, *_), items in lines.items():
        names = f"<b style='color: {colours[expert]}'>{html.escape(items[0]['text'])}</b>"
        others = ", ".join(html.escape(item["text"]) for item in items[1:])
        about = f"{items[0]['kind']}, {items[0]['score']:.2f}, {expert}"
        shown += f"<p>{names}{f' {others}' if others else ''} <small>{html.escape(about)}</small></p>"
    return shown


def _captions(captions: Sequence[Row], others: Collection[str], kind: str) -> str:
    """Each caption once, with how often it is there; those among `others` pale, the rest as `kind`."""
    counted = Counter(_caption(caption, "same" if caption["text"] in others else kind) for caption in captions)
    return "".join(
        f"<p>{text}{f' <small>· {count} times</small>' if count > 1 else ''}</p>" for text, count in counted.items()
    )


def _caption(caption: Row, kind: str) -> str:
    score = "" if caption["score"] is None else f"{caption['score']:g}, "
    added: dict[str, list[str]] = {}
    for item in caption["added"]:
        added.setdefault(item["expert"], []).append(f"{html.escape(item['text'])} {item['score']:.2f}")
    told = "; ".join(f"{', '.join(items)} ({html.escape(expert)})" for expert, items in added.items())
    text = f"<span class='{kind}'>{html.escape(caption['text']) or '(empty)'}</span>"
    return f"{text} <small>{score}{html.escape(caption['source'])}{f'<br>+ {told}' if told else ''}</small>"


def _number(value: float | int, key: str = "") -> str:
    return f"{value:,.4f}" if key == "money" or not float(value).is_integer() else f"{value:,.0f}"


def _table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: Iterable[int] = (),
    num_totals: int = 0,
    widths: Sequence[str] = (),
) -> str:
    """A table of cells as HTML. The columns `numbers` are aligned to the right, the last `num_totals` rows bold."""
    right = set(numbers)
    kinds = [" class='number'" if place in right else "" for place in range(len(heads))]
    columns = "".join(f"<col style='width: {width}'>" for width in widths)
    head = "".join(f"<th{kind}>{head}</th>" for kind, head in zip(kinds, heads, strict=True))
    body = ""
    for number, cells in enumerate(rows):
        is_total = number >= len(rows) - num_totals
        named = [f" data-head='{head}'" if widths else "" for head in heads]  # said above each cell on a phone
        line = "".join(f"<td{kind}{name}>{cell}</td>" for kind, name, cell in zip(kinds, named, cells, strict=True))
        body += f"<tr{' class=total' if is_total else ''}>{line}</tr>"
    name = "wide records" if widths else "wide"
    return f"<table class='{name}'>{columns}<tr>{head}</tr>{body}</table>"
