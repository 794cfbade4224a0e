"""Report section on bags of similar images: R@1 and CLIP score by bag size, bag size, and bags with their captions."""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from capkit.metrics.bags import Bags
from capkit.reports.charts import Point, line_chart
from capkit.reports.page import chart_row, curve
from capkit.reports.shell import thumbnail
from capkit.types import Row

NUM_EXAMPLES = 4
STYLE = """
.bag td, .bag th { vertical-align: top; text-align: left; max-width: 9.5rem } .bag { margin-bottom: 1.4rem }
.bag img { width: 128px; height: 128px; object-fit: contain; background: var(--soft) } .found { color: var(--good) }
.missed { color: var(--bad) }
"""
NOTE = (
    "R@1: fraction of captions by which the encoder finds their image among those of its bag; a caption that fits all "
    "n equally gets 1/n. CLIP score: 100 max(cosine of caption and own image, 0), over the images of these bags."
)
EXAMPLES_NOTE = (
    "Held-out bags. ✓: the encoder finds the image by its caption among those of the bag; ✗: it does not, or only by "
    "chance."
)


@dataclass(frozen=True)
class BagExample:
    """A bag of held-out images. Each row has key, caption, `before` (the caption at the start), and `found` and
    `found_before`: the probabilities that an encoder finds the image by these captions."""

    rows: list[Row]
    images: list[np.ndarray]


def bag_charts(rows: Sequence[Mapping[str, Any]]) -> str:
    """For each encoder, R@1 and CLIP score by bag size over validations; and the bag size of training.

    Empty without either.
    """
    names = {name for row in rows for name in row}
    sizes: dict[str, list[int]] = {}
    for name in names:
        match = re.fullmatch(r"val/(.+)_(\d+)_bags", name)
        if match is not None:
            sizes.setdefault(match[1], []).append(int(match[2]))
    drawn = [
        line_chart(
            f"{title} in bags: {judge}", {f"of {size}": curve(rows, f"val/{judge}_{size}_{key}") for size in sorted(of)}
        )
        for judge, of in sorted(sizes.items())
        for title, key in (("R@1", "r1"), ("CLIP score", "clip_score"))
    ]
    drawn.append(line_chart("images in a bag", {"training": _stairs(curve(rows, "train/bag_size"))}))
    return chart_row(drawn) if any(drawn) else ""


def _stairs(points: Sequence[Point]) -> list[Point]:
    """Points of a step chart: each value applies to the steps since the previous one."""
    starts = [0, *(step for step, _ in points)]
    return [
        point for start, (step, value) in zip(starts, points, strict=False) for point in ((start, value), (step, value))
    ]


def bag_examples(
    metrics: Mapping[str, Any],
    rows: Sequence[Row],
    before: Mapping[str, str],
    image: Callable[[str], np.ndarray],
    num_examples: int = NUM_EXAMPLES,
) -> list[BagExample]:
    """The first bags of the first metric over bags: one of each size, then another of each.

    `rows` are the captions of a split, `before` those of the start by key. None where no metric judges in bags.
    """
    metric = next((metric for metric in metrics.values() if isinstance(metric, Bags)), None)
    if metric is None:
        return []
    by_key = {row["key"]: row for row in rows if row["key"] in before}
    found = metric.bags_among([{"key": key, **row["metadata"]} for key, row in by_key.items()])
    of_size: dict[int, list[list[str]]] = {}
    for bag in found:
        of_size.setdefault(len(bag), []).append(bag)
    in_turn = chain.from_iterable(zip_longest(*(of_size[size] for size in sorted(of_size))))
    chosen = [bag for bag in in_turn if bag is not None][:num_examples]
    return [_example(metric, [by_key[key] for key in bag], before, image) for bag in chosen]


def _example(
    metric: Bags, rows: Sequence[Row], before: Mapping[str, str], image: Callable[[str], np.ndarray]
) -> BagExample:
    images = [image(row["key"]) for row in rows]
    metadata = [{"key": row["key"], "image": picture} for row, picture in zip(rows, images, strict=True)]
    first = [before[row["key"]] for row in rows]
    found = metric.hits([row["caption"] for row in rows], metadata)
    found_before = metric.hits(first, metadata)
    told = [
        {**row, "before": text, "found": now, "found_before": then}
        for row, text, now, then in zip(rows, first, found, found_before, strict=True)
    ]
    return BagExample(told, images)


def bag_section(rows: Sequence[Mapping[str, Any]], examples: Sequence[BagExample]) -> str:
    """The section; empty if a run has no bags."""
    drawn = bag_charts(rows)
    section = f"<p class='note'>{NOTE}</p>{drawn}" if drawn else ""
    if examples:
        section += f"<p class='note'>{EXAMPLES_NOTE}</p>{''.join(map(_table, examples))}"
    return f"<h2>Bags of look-alikes</h2>{section}" if section else ""


def _table(example: BagExample) -> str:
    """A table with a column per image, its captions below it."""
    pictures = [
        f"<img src='{thumbnail(picture)}' alt='{html.escape(row['key'])}'>"
        for row, picture in zip(example.rows, example.images, strict=True)
    ]
    lines = {
        f"bag of {len(example.rows)}": pictures,
        "before": [_caption(row["before"], row["found_before"]) for row in example.rows],
        "now": [_caption(row["caption"], row["found"]) for row in example.rows],
    }
    cells = {name: "".join(f"<td>{cell}</td>" for cell in line) for name, line in lines.items()}
    body = "".join(f"<tr><th>{name}</th>{line}</tr>" for name, line in cells.items())
    return f"<table class='bag'>{body}</table>"


def _caption(text: str, found: float) -> str:
    mark = "<span class='found'>✓</span>" if found > 0.999 else "<span class='missed'>✗</span>"
    return f"{mark} {html.escape(text) or '<i>(empty)</i>'}"
