"""report.html of a run on preferences: held-out pairs with their margins, log-probabilities over time, captions."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from capkit.reports.charts import line_chart
from capkit.reports.page import chart_row, curve, numbers_section, write_page
from capkit.reports.rl import SAMPLES_NOTE
from capkit.reports.samples import SHOWN, Samples, samples_section
from capkit.reports.shell import OPENED, render, thumbnail
from capkit.run.folder import RunFolder

NOTE = "test: the final policy. test/initial: the policy before training."
STYLE = (
    ".alarm { border: 1px solid var(--bad); border-radius: .6rem; padding: .6rem .9rem; max-width: 60rem } "
    ".alarm b { color: var(--bad) } "
    ".side { padding: .2rem .4rem; border-radius: .25rem; overflow-wrap: anywhere } "
    ".side.chosen { background: var(--good-soft) } .side.rejected { background: var(--bad-soft) } "
    ".turned { color: var(--bad); font-weight: 600 }"
)

Rows = Sequence[Mapping[str, Any]]


def write_preferences_report(folder: RunFolder, title: str, pairs: Samples, samples: Samples, max_drop: float) -> None:
    """`pairs` have key, chosen, rejected, criterion, scores, and before, now and margin in nats, without beta.

    `samples` are as of `write_rl_report`. `max_drop`: how far, in nats a token, the chosen captions may fall.
    """
    rows: Any = folder.current_rows()
    cards = [
        Markup(render("pairs_card.html", pair=pair, picture=thumbnail(image, OPENED), scores=_scores(pair["scores"])))
        for pair, image in pairs
    ]
    body = render("pairs.html", cards=cards, fall=fall(rows, max_drop), max_drop=max_drop, shown=SHOWN)
    body += f"<h2>Training</h2>{chart_row([drawn for drawn in _charts(rows, max_drop) if drawn])}"
    body += samples_section(samples, SAMPLES_NOTE) + numbers_section(folder, NOTE)
    write_page(folder, title, body, STYLE)


def fall(rows: Rows, max_drop: float) -> dict[str, Any] | None:
    """The first step at which the chosen captions had lost more than `max_drop` nats a token, and their deepest fall.

    None where they never have. Of training and of the held-out pairs.
    """
    found = sorted(
        (step, drop, kind)
        for name, kind in (("train", "trained on"), ("val", "held out"))
        for step, drop in curve(rows, f"{name}/preference/chosen_drop")
        if drop > max_drop
    )
    if not found:
        return None
    step, _, kind = found[0]
    return {"step": step, "kind": kind, "deepest": max(drop for _, drop, _ in found)}


def _charts(rows: Rows, max_drop: float) -> list[str]:
    def both(name: str) -> dict[str, Any]:
        return {"training": curve(rows, f"train/{name}"), "held out": curve(rows, f"val/{name}")}

    sides = {
        kind: {side: curve(rows, f"{split}/preference/{side}_logprob") for side in ("chosen", "rejected")}
        for split, kind in (("val", "held out"), ("train", "training"))
    }
    drops = both("preference/chosen_drop")
    reaches = any(drop > max_drop / 2 for points in drops.values() for _, drop in points)
    return [
        *(line_chart(f"log-probability of a caption, {kind}", lines) for kind, lines in sides.items()),
        line_chart("fall of the chosen, nats a token", drops, levels={"max_drop": max_drop} if reaches else None),
        line_chart("accuracy", both("preference/accuracy"), levels={"chance": 0.5}),
        line_chart("margin, times beta", both("preference/margin")),
        line_chart("loss", both("loss")),
    ]


def _scores(scores: Sequence[float] | None) -> tuple[str, str]:
    return ("", "") if scores is None else (f"{scores[0]:.3g}", f"{scores[1]:.3g}")
