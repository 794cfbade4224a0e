"""A reward that asks questions: accuracy by kind, length and repetition over time, and answers before and now."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from capkit.reports.charts import Point, line_chart
from capkit.reports.page import chart_row, curve
from capkit.reports.samples import Samples
from capkit.reports.shell import OPENED, render, thumbnail

STYLE = (
    ".asked { grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)) } "
    ".asked .sample { flex-wrap: wrap } "
    ".asked table { flex: 1 1 100% } .asked th, .asked td { text-align: left; white-space: normal } "
    ".answer { padding: 0 .3rem; border-radius: .25rem } .answer.right { background: var(--good-soft) } "
    ".answer.wrong { background: var(--bad-soft); text-decoration: underline } "
    ".answer.open { background: var(--line) } "
)
NUM_LINES = 6  # kinds of question in one chart
_RIGHT = "_right_"

Rows = Sequence[Mapping[str, Any]]


def questions_section(rows: Rows, answers: Samples, images_per_step: int | None = None) -> str:
    """Charts of what was logged about questions, and pictures with their questions; empty where none are asked.

    A row of `answers` has key, caption, `before` and `answers`: {question, answer, before, now}, of which the last two
    are {said, abstained, right}. `images_per_step`, of all ranks, is what the reader's share of the time is taken of.
    """
    terms = sorted({name.partition(_RIGHT)[0] for row in rows for name in row if _RIGHT in name})
    if not terms and not answers:
        return ""
    charts = [chart_row([drawn for drawn in _charts(rows, term, images_per_step) if drawn]) for term in terms]
    cards = [Markup(_card(row, thumbnail(image, OPENED))) for row, image in answers]
    return render("questions.html", charts=Markup("".join(charts)), cards=cards)


def _charts(rows: Rows, term: str, images_per_step: int | None) -> list[str]:
    own = f"{term}{_RIGHT}"
    logged = sorted({name for row in rows for name in row if name.startswith(own)})
    kinds = {name.removeprefix(own).replace("_", " "): curve(rows, name) for name in logged}
    names = list(kinds)
    parts = [names[start : start + NUM_LINES] for start in range(0, len(names), NUM_LINES)]
    shares = {name: curve(rows, f"{term}_{name}") for name in ("repeated", "abstained", "unread")}
    return [
        line_chart("questions answered rightly", {"samples": curve(rows, term), "greedy": curve(rows, f"val/{term}")}),
        *(line_chart("right, by kind of question", {name: kinds[name] for name in part}) for part in parts),
        line_chart("words of a caption", {"": curve(rows, "rl/length")}),
        line_chart("repetition, share cut at the length", {"repeated": curve(rows, "rl/repetition"),
                                                           "cut": curve(rows, "rl/hit_max_length")}),
        line_chart("share of questions", shares),
        line_chart("answers a second", {"": curve(rows, f"{term}_answers_per_second")}),
        line_chart("the reader's share of a step", {"": _share(rows, f"{term}_read_seconds", images_per_step)}),
    ]  # fmt: skip


def _share(rows: Rows, seconds: str, images_per_step: int | None) -> list[Point]:
    """Seconds of reading over seconds of a step, both means since the last row."""
    speed = "train/images_per_second"
    if images_per_step is None:
        return []
    return [
        (row["step"], row[seconds] * row[speed] / images_per_step) for row in rows if {seconds, speed} <= row.keys()
    ]


def _card(row: Mapping[str, Any], picture: str) -> str:
    return render(
        "questions_card.html",
        key=row["key"],
        picture=picture,
        caption=row["caption"],
        before=row["before"],
        answers=[
            (found["question"], found["answer"], _mark(found["before"]), _mark(found["now"]))
            for found in row["answers"]
        ],
    )


def _mark(said: Mapping[str, Any]) -> tuple[str, str]:
    """An answer as it is shown, and its class."""
    if said["said"] is None:
        return "not read", "open"
    if said["abstained"]:
        return "abstained", "open"
    return said["said"], "right" if said["right"] else "wrong"
