"""The numbers of a run, each with what it means: the few that matter first, then all of them."""

import math
import re
from collections.abc import Mapping, Sequence

from capkit.reports.shell import render
from capkit.run.folder import RunFolder
from capkit.run.metric_names import THROUGHPUT

Intervals = Mapping[str, tuple[float, float]]
# Those that stand large on a page and in bold in its table, the ones that a run has, in this order.
KEY = (
    "cider", "bleu_4", "spice", "fact_f1", "clip_score_mean", "text_r1", "retrieval_t2i_r1", "rd100_r1", "rd20_r1",
    "t2i_r1", "retrieval_i2t_r1", "auroc", "zero_shot_top1", "repetition",
)  # fmt: skip
NUM_TILES = 4
# What a name means, by the first pattern that fits all of it.
EXPLAINED = (
    (r"cider", "CIDEr-D: n-grams shared with the references, rare ones count more; 0 to 10, papers print it times 100"),
    (r"bleu_(\d)", r"BLEU-\1: share of the caption's word sequences of up to \1 words that a reference has; 0 to 1"),
    (r"rouge_l", "ROUGE-L: longest common word sequence with a reference, F of precision and recall; 0 to 1"),
    (r"meteor", "METEOR: words matched with a reference, stems and synonyms too; 0 to 1"),
    (r"spice", "SPICE: objects, attributes and relations shared with the references, F1; 0 to 1"),
    (r"fact_precision", "share of what the captions state that is true of the picture"),
    (r"fact_recall", "share of the picture's facts that the captions state"),
    (r"fact_f1", "harmonic mean of fact precision and recall; 0 to 1"),
    (r"unparsed_words", "words a hundred that no statement about a scene accounts for"),
    (r"clip_score_mean", "CLIPScore: 2.5 x the cosine of caption and picture, mean"),
    (r"clip_score_ref", "RefCLIPScore: CLIPScore and likeness to the references together"),
    (r"distinct_(\d)", r"different word sequences of length \1, as a share of all in the captions"),
    (r"repetition", "share of word pairs that a caption has said before; 0 is best"),
    (r"bad_endings", "share of captions that end in a word such as a, the, of"),
    (r"empty", "share of captions without a word"),
    (r"length", "words a caption, mean"),
    (r"vocabulary_size", "different words in all captions"),
    (r".*t2i_r(\d+)", r"share of captions whose picture is among the \1 nearest; 0 to 1"),
    (r".*i2t_r(\d+)", r"share of pictures with one of their captions among the \1 nearest; 0 to 1"),
    (r".*_median_rank", "median place of the right one; 1 is best"),
    (r"text_r(\d+)", r"share of captions that find their own picture's references among the first \1"),
    (r"(rd|truematch_)(\d+)_r1", r"share of captions by which an encoder finds their picture among \2"),
    (r"auroc", "area under the ROC curve; .5 is a guess"),
    (r"accuracy|.*_accuracy|.*_top1", "share that is right"),
    (r".*_(pool|images|captions|count)|support|num_.*", "how many were compared or counted"),
    (r"loss", "mean over what is learned, in nats a token where it is a likelihood"),
)  # fmt: skip
_COUNTS = re.compile(r"vocabulary_size|steps|.*_(pool|images|captions|count|step)|num_.*|removed_regions")
_COLUMNS = {"untrained": "before training", "initial": "before training", "shuffled": "captions of other pictures"}


def explained(name: str) -> str:
    """What a number means; empty if nothing is known of it."""
    for pattern, text in EXPLAINED:
        if match := re.fullmatch(pattern, name):
            return match.expand(text)
    return ""


def shown_number(name: str, value: float | None) -> str:
    """A number as a person reads it: counts as counts, others with three decimals; empty if there is none."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "–"
    if _COUNTS.fullmatch(name):
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"


def measured_numbers(folder: RunFolder) -> dict[str, float]:
    """The run's numbers, without those of its speed."""
    return {key: value for key, value in folder.metrics().items() if key not in THROUGHPUT}


def or_null(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers for a JSON file, which can hold neither NaN nor infinity: None in their place."""
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}


def columns_of(numbers: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Numbers by who was measured (`test`, `test/shuffled`), without those of training."""
    columns: dict[str, dict[str, float]] = {}
    for key, value in numbers.items():
        split, *middle, name = key.split("/")
        if split != "train":
            columns.setdefault("/".join([split, *middle]), {})[name] = value
    return columns


def metric_table(numbers: Mapping[str, float], intervals: Intervals | None = None) -> str:
    """Table of metrics (rows) by the captioner measured (columns): `test/cider`, `test/shuffled/cider` ...

    `intervals` are of the columns without a second word, by the names of the numbers. Beside a few rows that matter,
    all others are there to be opened.
    """
    columns = dict(sorted(columns_of(numbers).items(), key=lambda item: "/" in item[0]))
    names = list(dict.fromkeys(name for values in columns.values() for name in values))
    first = [name for name in KEY if name in names]
    heads = [(column, _COLUMNS.get(column.rpartition("/")[2], "")) for column in columns]
    return render(
        "numbers.html",
        heads=heads,
        first=[_line(name, columns, intervals or {}) for name in first],
        others=[_line(name, columns, intervals or {}) for name in names if name not in first],
    )


def _line(name: str, columns: Mapping[str, Mapping[str, float]], intervals: Intervals) -> dict[str, object]:
    cells = [
        {"value": shown_number(name, values.get(name)), "interval": "" if "/" in column else _ends(name, intervals)}
        for column, values in columns.items()
    ]
    return {"name": name, "cells": cells, "explained": explained(name)}


def _ends(name: str, intervals: Intervals) -> str:
    low, high = intervals.get(name, (math.nan, math.nan))
    return "" if math.isnan(low) else f"{shown_number(name, low)} to {shown_number(name, high)}"


def tiles(numbers: Mapping[str, float], intervals: Intervals | None = None) -> str:
    """The first few numbers that matter, large, each beside its controls. Empty if a run has none of them."""
    columns = columns_of(numbers)
    main = next((column for column in columns if "/" not in column), None)
    if main is None:
        return ""
    names: Sequence[str] = [name for name in KEY if name in columns[main]][:NUM_TILES]
    shown = [
        {
            "name": name,
            "value": shown_number(name, columns[main][name]),
            "interval": _ends(name, intervals or {}),
            "explained": explained(name),
            "others": [
                (_COLUMNS.get(column.rpartition("/")[2], column), shown_number(name, values[name]))
                for column, values in columns.items()
                if column.startswith(f"{main}/") and name in values
            ],
        }
        for name in names
    ]
    return render("tiles.html", tiles=shown) if shown else ""
