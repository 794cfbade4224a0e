"""report.html of a run on preferences: margins and probabilities over time, pairs with their margins, captions."""

from collections.abc import Sequence
from typing import Any

from capkit.reports.charts import line_chart
from capkit.reports.page import chart_row, curve, numbers_section, write_page
from capkit.reports.rl import SAMPLES_NOTE
from capkit.reports.samples import Samples, samples_section
from capkit.reports.shell import render
from capkit.run.folder import RunFolder
from capkit.types import Row

CHARTS = (
    "preference/accuracy", "preference/margin", "preference/chosen_logprob", "preference/rejected_logprob",
    "preference/chosen_drop",
)  # fmt: skip
NOTE = "test: the final policy. test/initial: the policy before training."


def write_preferences_report(folder: RunFolder, title: str, pairs: Sequence[Row], samples: Samples) -> None:
    """`pairs` have key, chosen, rejected, criterion and margin (nats, without beta).

    `samples` are as of `write_rl_report`.
    """
    rows: Any = folder.current_rows()
    losses = line_chart("loss", {"training": curve(rows, "train/loss"), "held out": curve(rows, "val/loss")})
    drawn = [
        line_chart(name, {"training": curve(rows, f"train/{name}"), "held out": curve(rows, f"val/{name}")})
        for name in CHARTS
    ]
    said = (
        "Of a pair the margin is what the chosen caption has gained over the reference, minus what the rejected one "
        "has; accuracy is the share of pairs with a margin above 0. chosen_drop above 0: the chosen captions have "
        "become less probable, in nats a token."
    )
    body = samples_section(samples, SAMPLES_NOTE) + render("pairs.html", pairs=pairs)
    body += numbers_section(folder, NOTE)
    body += f"<h2>Training</h2><p class='note'>{said}</p>{chart_row([losses, *drawn])}"
    write_page(folder, title, body)
