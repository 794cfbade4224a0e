"""report.html of reinforcement learning: gains, costs, and signs of degeneration.

Shows held-out pictures with the captions of the initial and the final policy, bags of similar pictures if the run has
any, the numbers, the frontier (CIDEr against retrieval), and each reward term and monitor over time.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from capkit.reports.bags import STYLE as BAG_STYLE
from capkit.reports.bags import BagExample, bag_section
from capkit.reports.charts import line_chart, path_chart
from capkit.reports.page import chart_row, curve, more_curves, numbers_section, validated, write_page
from capkit.reports.questions import STYLE as QUESTIONS_STYLE
from capkit.reports.questions import questions_section
from capkit.reports.samples import Samples, samples_section
from capkit.run.folder import RunFolder
from capkit.run.selection import Bound

Rows = Sequence[Mapping[str, Any]]

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
SAMPLES_NOTE = "Bold: what it writes now, by the policy that was kept. Before: what it wrote at the start."
NOTE = (
    "test: the final policy. test/initial: the policy before training. test/shuffled: each image with "
    "the caption written for another one. Recalls are fractions; CIDEr is in its own unit (10 at most)."
)


def write_rl_report(
    folder: RunFolder, title: str, samples: Samples, bags: Sequence[BagExample] = (), answers: Samples = ()
) -> None:
    """Write report.html. A sample's row has key, caption, references, `before` (the caption at the start), `rewards` of
    the caption by term and, if known, `before_rewards`, those of the caption at the start. Rows of `answers`, of a
    reward that asks questions, are as `questions_section` has them."""
    rows = folder.current_rows()
    body = _how_it_ended(folder) + samples_section(samples, SAMPLES_NOTE)
    body += questions_section(rows, answers, _images_per_step(folder)) + bag_section(rows, bags)
    body += numbers_section(folder, NOTE)
    body += frontier(rows, folder.metrics().get("train/selected_step"))
    body += f"<h2>Rewards</h2>{reward_charts(rows)}"
    body += monitor_charts(rows, limits_of(folder))
    body += more_curves(rows, _others(rows))
    write_page(folder, title, body, BAG_STYLE + QUESTIONS_STYLE)


def frontier(rows: Rows, selected_step: float | int | None = None) -> str:
    """Each validation as a point: CIDEr across, retrieval (else CLIPScore) up, joined in the order of steps.

    Empty where fewer than two validations have both.
    """
    gain = next((name for name in GAINS if any(name in row for row in rows)), None)
    points = [row for row in rows if COST in row and gain in row]
    if gain is None or len(points) < 2:
        return ""
    steps = [int(row["step"]) for row in points]
    named = {"start (MLE)": 0, "selected": selected_step}
    marks = {name: steps.index(int(step)) for name, step in named.items() if step is not None and step in steps}
    chart = path_chart(
        f"{_plain(gain)} (up) against {_plain(COST)}",
        [(row[COST], row[gain]) for row in points],
        [str(step) for step in steps],
        _plain(COST),
        marks,
    )
    note = (
        "Each validation is a point, labelled by its step. To the right: closer to the references. Up: more of the "
        "picture is told."
    )
    return f"<h2>Frontier</h2>{chart_row([chart])}<p class='note'>{note}</p>"


def reward_charts(rows: Rows) -> str:
    """Each term's raw score, and the total that is maximised."""
    names = _names(rows)
    terms = sorted(name for name in names if name.startswith("reward/") and f"{name}_weighted" in names)
    drawn = [
        line_chart(name, {"samples": curve(rows, name), "greedy": curve(rows, f"val/{name}")})
        for name in [*terms, "reward/total"]
    ]
    note = "Terms before weights and normalisation; total: what is learned. Greedy: of validation."
    return f"<p class='note'>{note}</p>{chart_row(drawn)}"


def monitor_charts(rows: Rows, limits: Mapping[str, str]) -> str:
    """Charts of the numbers that show degeneration: in sight those with one of the run's limits, as a dashed line."""
    names = sorted(name for name in _names(rows) if name.startswith("rl/") or name in MONITORS)
    if not names:
        return ""
    watched = [_monitor(rows, name, limits[name]) for name in names if name in limits]
    others = [_monitor(rows, name, None) for name in names if name not in limits]
    section = f"<h2>Monitors</h2>{chart_row(watched)}<p class='note'>Dashed: the limits of callback.degeneration.</p>"
    if not others:
        return section
    told = f"{len(others)} more monitor{'s' if len(others) > 1 else ''}"
    opened = f"<details><summary>{told}</summary>{chart_row(others)}</details>"
    return section + opened if watched else opened


def _monitor(rows: Rows, name: str, limit: str | None) -> str:
    return line_chart(name, {"samples": curve(rows, name)}, levels=_levels(limit))


def limits_of(folder: RunFolder) -> dict[str, str]:
    """The limits of monitors in the run's config."""
    watched = (_config(folder).get("callback") or {}).get("degeneration") or {}
    return {name: limit for name, limit in (watched.get("limits") or {}).items() if limit is not None}


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


def _images_per_step(folder: RunFolder) -> int | None:
    return (_config(folder).get("data") or {}).get("batch_size")


def _config(folder: RunFolder) -> dict[str, Any]:
    return folder.config() or {}


def _plain(name: str) -> str:
    return name.removeprefix("val/")
