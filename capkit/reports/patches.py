"""The report's part about grouped patches (DreamLIP): both losses over training, texts a picture, where texts look."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from capkit.reports.charts import line_chart
from capkit.reports.page import chart_row, curve
from capkit.reports.shell import thumbnail
from capkit.reports.word_attention import overlay

NOTE = (
    "Held-out pictures as the model sees them, then once for each text: the redder a patch, the larger its weight in "
    "the text's group (objective.terms.grouping), relative to the reddest."
)
STYLE = """
.looks { display: flex; flex-wrap: wrap; gap: .6rem; margin-bottom: 1.2rem }
.looks figure { margin: 0; width: 104px } .looks img { width: 96px; height: 96px; background: var(--soft) }
.looks figcaption { font-size: 13px; color: var(--quiet); overflow-wrap: anywhere }
"""


@dataclass(frozen=True)
class Looked:
    """A picture as the model sees it, and of each text the weights of its grid of patches."""

    key: str
    picture: UInt8[np.ndarray, "P Q 3"]
    texts: Sequence[tuple[str, Float[np.ndarray, "G G"]]]


@dataclass(frozen=True)
class TextsDrawn:
    """How many texts a step draws of a picture, and how many different ones each of some training pictures has."""

    count: int
    available: Sequence[int]

    def told(self) -> str:
        """K in practice."""
        different = np.minimum(self.available, self.count)
        fewer = int((different < self.count).sum())
        if not fewer:
            return (
                f"A step draws {self.count} texts of a picture. All of {len(different):,} have as many different ones."
            )
        return (
            f"A step draws {self.count} texts of a picture. Of {len(different):,} training pictures {fewer:,} have "
            f"fewer different ones, which then come twice; the mean is {different.mean():.2f}."
        )


def patches_section(rows: Sequence[Mapping[str, Any]], looked: Sequence[Looked], drawn: TextsDrawn | None) -> str:
    """Empty where training logged no loss of grouped patches."""
    terms = {name: curve(rows, f"train/{name}/loss") for name in ("captions", "grouping")}
    if not terms["grouping"]:
        return ""
    found = {
        name: curve(rows, f"train/{name}/{key}")
        for name, key in (("captions", "accuracy_t2i"), ("grouping", "accuracy"))
    }
    charts = chart_row(
        [line_chart("loss of each term", terms), line_chart("texts that find their picture or group", found)]
    )
    told = "" if drawn is None else f"<p>{html.escape(drawn.told())}</p>"
    shown = f"<p class='note'>{html.escape(NOTE)}</p>{''.join(map(_looks, looked))}" if looked else ""
    return f"<style>{STYLE}</style><h2>Texts and patches</h2>{told}{charts}{shown}"


def _looks(looked: Looked) -> str:
    figures = [_figure(thumbnail(looked.picture), looked.key)]
    figures += [_figure(thumbnail(overlay(looked.picture, weights)), text) for text, weights in looked.texts]
    return f"<div class='looks'>{''.join(figures)}</div>"


def _figure(url: str, text: str) -> str:
    return f"<figure><img src='{url}' alt=''><figcaption dir='auto'>{html.escape(text)}</figcaption></figure>"
