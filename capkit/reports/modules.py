"""Which modules of a modular captioner say which words: over training, and in captions, with where each word looked."""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from capkit.reports.charts import COLOURS, Point, line_chart
from capkit.reports.page import chart_row
from capkit.reports.shell import thumbnail
from capkit.text.word_classes import MODULES
from capkit.types import Row

Box = tuple[float, float, float, float]
Boxes = Callable[[str], Sequence[tuple[Box, str]]]
InPicture = Callable[[Box, int, int], Box]
COLOUR = dict(zip(MODULES, COLOURS, strict=False))
NOTE = (
    "Mean weight of each module at words of one class, of the captions that were learned. Below: a caption's words in "
    "the colour of their strongest module, and the region or cell that its visual modules looked at most."
)
STYLE = """
.said { display: flex; flex-wrap: wrap; gap: .5rem; margin: .3rem 0 1.2rem }
.said figure { margin: 0; text-align: center; font-size: 13px; font-weight: 600 }
.said .seen { position: relative; width: 72px; height: 72px } .said img { width: 72px; height: 72px }
.said .seen div { position: absolute; box-sizing: border-box; border: 2px solid; outline: 1px solid #fff }
.said .what { font-weight: 400; color: var(--quiet) }
"""


def modules_section(
    rows: Sequence[Mapping[str, Any]], samples: Sequence[tuple[Row, np.ndarray]], boxes: Boxes, in_picture: InPicture
) -> str:
    """Charts of the weights that training logged as `train/modules/CLASS/MODULE`, and the samples' words, coloured.

    `boxes` gives the regions of an image's key, in their order, and `in_picture` where a cell of what the model sees
    lies in a picture of this height and width. Empty where no sample says its modules.
    """
    shown = [_caption(row, image, boxes, in_picture) for row, image in samples if "modules" in row]
    if not shown:
        return ""
    drawn = [line_chart(f"weights at words of {name}", _weights(rows, name)) for name in MODULES]
    legend = " ".join(f"<b style='color:{colour}'>{name}</b>" for name, colour in COLOUR.items())
    head = f"<h2>Modules</h2><p class='note'>{html.escape(NOTE)}</p>{chart_row(drawn)}<p>{legend}</p>"
    return f"<style>{STYLE}</style>{head}{''.join(shown)}"


def _weights(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, list[Point]]:
    keys = {module: f"train/modules/{name}/{module}" for module in MODULES}
    found: dict[str, list[Point]] = {module: [] for module in MODULES}
    for row in rows:
        if not all(key in row for key in keys.values()):
            continue
        share = sum(row[key] for key in keys.values())
        if share > 0:  # the batch had such words
            for module, key in keys.items():
                found[module].append((row["step"], row[key] / share))
    return found


def _caption(row: Row, image: np.ndarray, boxes: Boxes, in_picture: InPicture) -> str:
    regions, url = boxes(row["key"]), thumbnail(image)
    figures = [_figure(word, url, regions, _cell(word, image, in_picture)) for word in row["modules"]]
    return f"<div class='said'>{''.join(figures)}</div>"


def _cell(word: Mapping[str, Any], image: np.ndarray, in_picture: InPicture) -> Box | None:
    if "cell" not in word:
        return None
    x0, y0, x1, y1 = word["cell"]
    return in_picture((x0, y0, x1, y1), *image.shape[:2])


def _figure(word: Mapping[str, Any], url: str, regions: Sequence[tuple[Box, str]], cell: Box | None) -> str:
    module = MODULES[int(np.argmax(word["weights"]))]
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(MODULES, word["weights"], strict=True))
    box, what = cell, ""
    if "region" in word:
        known = word["region"] < len(regions)
        box, what = regions[word["region"]] if known else (None, f"region {word['region'] + 1}")
    seen = f"<img src='{url}' alt='{html.escape(word['word'])}: {module}'>" if module != "function" else ""
    if box is not None:
        x0, y0, x1, y1 = (100 * edge for edge in box)
        place = f"left:{x0:.1f}%;top:{y0:.1f}%;width:{x1 - x0:.1f}%;height:{y1 - y0:.1f}%"
        seen += f"<div style='{place};border-color:{COLOUR[module]}'></div>"
    return (
        f"<figure title='{weights}'><div class='seen'>{seen}</div>"
        f"<span style='color:{COLOUR[module]}'>{html.escape(word['word'])}</span>"
        f"<div class='what'>{html.escape(what)}</div></figure>"
    )
