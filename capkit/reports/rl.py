"""report.html of reinforcement learning: gains, costs, and signs of degeneration.

Shows the frontier (CIDEr against retrieval), each reward term and monitor over time, bags of similar images if the run
has any, the numbers, and held-out images with captions of the initial and the final policy side by side.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from capkit.reports.bags import STYLE as BAG_STYLE
from capkit.reports.bags import BagExample, bag_section
from capkit.reports.charts import line_chart, path_chart
from capkit.reports.page import chart_row, charts, curve, numbers_section, thumbnail, validated, write_page
from capkit.run.folder import RunFolder
from capkit.run.selection import Bound
from capkit.types import Row

Rows = Sequence[Mapping[str, Any]]

STYLE = """
.pairs td, .pairs th { text-align: left; vertical-align: top } .pairs img { max-width: 128px; max-height: 128px }
.pairs .scores { font-variant-numeric: tabular-nums; text-align: right } .pairs ul { margin: .3rem 0; color: #4b5563 }
.now { font-weight: 600 }
"""
COST = "val/cider"
GAINS = (
    "val/retrieval_t2i_r1",
    "val/rd100_r1",
    "val/rd20_r1",
    "val/text_r1",
    "val/clip_score_mean",
    "val/reward/clip_score",
)
MONITORS = ("reward/std", "reward/zero_spread", "reward/failed")  # in addition to the whole section rl
NOTE = (
    "test: the final policy. test/initial: the policy before training. test/shuffled: each image with "
    "the caption written for another one. Recalls are fractions; CIDEr is in its own unit (10 at most)."
)


def write_rl_report(
    folder: RunFolder, title: str, samples: Sequence[tuple[Row, np.ndarray]], bags: Sequence[BagExample] = ()
) -> None:
    """Write report.html. A sample's row has key, caption, references, `before` (the caption at the start), `rewards` of
    the caption by term and, if known, `before_rewards`, those of the caption at the start."""
    rows = folder.current_rows()
    body = _how_it_ended(folder)
    body += f"<h2>Frontier</h2>{frontier(rows, folder.metrics().get('train/selected_step'))}"
    body += f"<h2>Rewards</h2>{reward_charts(rows)}"
    body += f"<h2>Monitors</h2>{monitor_charts(rows, limits_of(folder))}"
    body += bag_section(rows, bags)
    body += numbers_section(folder, NOTE)
    body += f"<h2>Held-out images</h2>{sample_table(samples)}"
    body += f"<details><summary>More curves</summary>{charts(rows, _others(rows))}</details>"
    write_page(folder, title, body, STYLE + BAG_STYLE)


def frontier(rows: Rows, selected_step: float | int | None = None) -> str:
    """Each validation as a point: CIDEr across, retrieval (else CLIPScore) up, joined in the order of steps."""
    gain = next((name for name in GAINS if any(name in row for row in rows)), None)
    points = [row for row in rows if COST in row and gain in row]
    if gain is None or not points:
        wanted = " or ".join(name.removeprefix("val/") for name in GAINS)
        return f"<p class='note'>Drawn where validations log cider and one of {wanted}.</p>"
    steps = [int(row["step"]) for row in points]
    named = {"start (MLE)": 0, "selected": selected_step}
    marks = {name: steps.index(int(step)) for name, step in named.items() if step is not None and step in steps}
    title = f"{_plain(gain)} (up) against {_plain(COST)}; labels: steps"
    chart = path_chart(
        title, [(row[COST], row[gain]) for row in points], [str(step) for step in steps], _plain(COST), marks
    )
    note = "Each validation is a point. To the right: closer to the references. Up: more of the image is told."
    return f"{chart_row([chart])}<p class='note'>{note}</p>"


def reward_charts(rows: Rows) -> str:
    """Each term's raw score, and the total that is maximised."""
    names = _names(rows)
    terms = sorted(name for name in names if name.startswith("reward/") and f"{name}_weighted" in names)
    drawn = [
        line_chart(name, {"samples": curve(rows, name), "validation (greedy)": curve(rows, f"val/{name}")})
        for name in [*terms, "reward/total"]
    ]
    return f"<p class='note'>Terms before weights and normalisation; total: what is learned.</p>{chart_row(drawn)}"


def monitor_charts(rows: Rows, limits: Mapping[str, str]) -> str:
    """Charts of the numbers that show degeneration, with the run's limits as dashed lines."""
    names = sorted(name for name in _names(rows) if name.startswith("rl/") or name in MONITORS)
    drawn = [line_chart(name, {"samples": curve(rows, name)}, levels=_levels(limits.get(name))) for name in names]
    return f"<p class='note'>Dashed: the limits of callback.degeneration.</p>{chart_row(drawn)}"


def limits_of(folder: RunFolder) -> dict[str, str]:
    """The limits of monitors in the run's config."""
    watched = (_config(folder).get("callback") or {}).get("degeneration") or {}
    return {name: limit for name, limit in (watched.get("limits") or {}).items() if limit is not None}


def sample_table(samples: Sequence[tuple[Row, np.ndarray]]) -> str:
    """Image and references, caption at the start, caption now, and each reward of both."""
    terms = list(dict.fromkeys(term for row, _ in samples for term in row["rewards"]))
    head = "".join(f"<th>{html.escape(term)}</th>" for term in terms)
    body = "".join(_sample_rows(row, image, terms) for row, image in samples)
    columns = f"<tr><th>image</th><th></th><th>caption</th>{head}</tr>"
    return f"<table class='pairs'>{columns}{body}</table>"


def _sample_rows(row: Row, image: np.ndarray, terms: Sequence[str]) -> str:
    picture = f"<img src='{thumbnail(image)}' alt='{html.escape(row['key'])}'>"
    references = "".join(f"<li>{html.escape(reference)}</li>" for reference in row["references"])
    span = f"<td rowspan='3'>{picture}</td>"
    before = _caption_cells("before", row["before"], row.get("before_rewards", {}), terms)
    now = _caption_cells("now", row["caption"], row["rewards"], terms)
    told = f"<td>references</td><td colspan='{1 + len(terms)}'><ul>{references}</ul></td>"
    return f"<tr>{span}{before}</tr><tr class='now'>{now}</tr><tr>{told}</tr>"


def _caption_cells(when: str, caption: str, rewards: Mapping[str, float], terms: Sequence[str]) -> str:
    scores = "".join(f"<td class='scores'>{_score(rewards.get(term))}</td>" for term in terms)
    return f"<td>{when}</td><td>{html.escape(caption) or '<i>(empty)</i>'}</td>{scores}"


def _score(value: float | int | None) -> str:
    return "" if value is None else "could not score" if math.isnan(value) else f"{value:.3f}"


def _how_it_ended(folder: RunFolder) -> str:
    """Whether training ended early, and which weights the numbers belong to."""
    numbers, max_steps = folder.metrics(), _config(folder).get("max_steps")
    last = max((row["step"] for row in folder.current_rows()), default=0)
    told = [f"Training ended at step {last} of {max_steps}."] if max_steps is not None and last < max_steps else []
    if "train/restored_step" in numbers:
        told.append(f"The captioner degenerated: the weights of step {numbers['train/restored_step']:.0f} came back.")
    if "train/selected_step" in numbers:
        told.append(f"Evaluated with the selected checkpoint, of step {numbers['train/selected_step']:.0f}.")
    return f"<p>{' '.join(told)}</p>" if told else ""


def _levels(limit: str | None) -> dict[str, float]:
    """`<= 0.3` as a level of a chart."""
    bound = None if limit is None else Bound.parse(limit)
    return {} if bound is None else {str(bound): bound.number}


def _names(rows: Rows) -> set[str]:
    return {name for row in rows for name in row}


def _others(rows: Rows) -> list[str]:
    """Loss, gradient norm and validation metrics."""
    trained = {name.removeprefix("train/") for name in _names(rows) if name.startswith("train/")}
    return sorted((trained - {"bag_size"}) | {name for name in validated(rows) if not name.startswith("reward/")})


def _config(folder: RunFolder) -> dict[str, Any]:
    return folder.config() or {}


def _plain(name: str) -> str:
    return name.removeprefix("val/")
