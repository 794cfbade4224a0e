"""Pictures with captions: what was written, before and now, what the references say, and how each caption scored."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from capkit.reports.shell import OPENED, render, thumbnail
from capkit.types import Row

Samples = Sequence[tuple[Row, np.ndarray]]
GROUPS = {
    "": ("As they come", "The first pictures of the split, chosen by nothing."),
    "best": ("The best", "The pictures whose captions score highest by {score}."),
    "worst": ("The worst", "The pictures whose captions score lowest by {score}: what it does not see."),
}
SHOWN = 6  # of the pictures that come first; the others open


def samples_section(samples: Samples, note: str = "") -> str:
    """The pictures; those that were chosen by their score (`row["shown"]`) in parts of their own.

    A row has key, caption and references; it may have `before`, the caption at the start, `rewards` and
    `before_rewards` by term, and the `score` of its caption by what `scored_by` names. Empty without any.
    """
    groups = []
    for kind, (title, told) in GROUPS.items():
        rows = [(row, image) for row, image in samples if row.get("shown", "") == kind]
        if rows:
            name = rows[0][0].get("scored_by", "")
            cards = [Markup(card(row, image)) for row, image in rows]
            groups.append({"title": title, "told": told.format(score=name), "cards": cards})
    return render("samples.html", groups=groups, note=note, shown=SHOWN) if groups else ""


def card(row: Row, image: np.ndarray) -> str:
    """One picture, or the prompt where it has one, with its captions."""
    prompt = row.get("metadata", {}).get("prompt")
    return render(
        "card.html",
        key=row["key"],
        picture=None if prompt is not None else thumbnail(image, OPENED),
        prompt=prompt,
        caption=row["caption"],
        before=row.get("before"),
        references=row["references"],
        score=f"{row['scored_by']} {row['score']:.2f}" if "score" in row else "",
        rewards=_rewards(row.get("rewards", {}), row.get("before_rewards", {})),
    )


def _rewards(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [(term, _score(before.get(term)), _score(value)) for term, value in now.items()]


def _score(value: float | int | None) -> str:
    return "" if value is None else "no score" if math.isnan(value) else f"{value:.3f}"
