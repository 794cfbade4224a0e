"""Writes generated captions to files and scores them with metrics."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from capkit.distributed.collectives import broadcast_object, gather_objects, rank
from capkit.metrics.base import Resampled, TextScore
from capkit.metrics.bootstrap import bootstrap_intervals
from capkit.metrics.judged import Columns, JudgedMetric
from capkit.types import Row
from capkit.utils.console import phase
from capkit.utils.files import write_atomically
from capkit.utils.rng import generator


def gather_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows of all ranks, one per key, sorted by key: the same on every rank and for every number of ranks."""
    by_key = {row["key"]: row for part in gather_objects(list(rows)) for row in part}
    return [by_key[key] for key in sorted(by_key)]


def score_rows(
    rows: Sequence[Row],
    metrics: Mapping[str, TextScore],
    image: Callable[[str], np.ndarray] | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """Compute all metrics on rank 0 and return their numbers on every rank.

    Of metrics whose models are asked (`JudgedMetric`) every rank judges a share of the pictures before. Rows without
    references are left out, except for metrics whose `needs_references` is False. Metadata get the row's "key" and, if
    `image` reads images, an "image" that is read only if a metric uses it. Once `is_stopping()` is true, remaining
    metrics are skipped, since the run ends before anyone reads the numbers.
    """
    numbers: dict[str, float] = {}
    for name, metric in metrics.items():
        scored = scored_rows(rows, metric)
        if isinstance(metric, JudgedMetric) and scored:
            if broadcast_object(is_stopping()):
                break
            with phase(f"judging by {name}"):
                metric.judge_shares(*columns_of(scored, image))
        if rank() == 0:
            if is_stopping():
                continue
            with phase(f"scoring {name}"):
                numbers.update(metric.score(*columns_of(scored, image)) if scored else {})
    return broadcast_object(numbers)


def resample_rows(
    rows: Sequence[Row],
    metrics: Mapping[str, TextScore],
    image: Callable[[str], np.ndarray] | None,
    confidence: float,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals over images, on rank 0, of the numbers of metrics that can be resampled; see `Resampled`."""
    found: dict[str, tuple[float, float]] = {}
    if rank() == 0:
        for name, metric in metrics.items():
            if isinstance(metric, Resampled) and (scored := scored_rows(rows, metric)):
                with phase(f"resampling {name}"):
                    found |= bootstrap_intervals(metric.image_sums(*columns_of(scored, image)), confidence, seed=seed)
    return found


def write_judged(
    folder: Path,
    rows: Sequence[Row],
    metrics: Mapping[str, TextScore],
    image: Callable[[str], np.ndarray] | None = None,
) -> None:
    """Write what became of each picture, as each `JudgedMetric` does it. On rank 0, after `score_rows`."""
    for metric in metrics.values():
        if isinstance(metric, JudgedMetric) and (scored := scored_rows(rows, metric)):
            folder.mkdir(parents=True, exist_ok=True)
            metric.write(folder, columns_of(scored, image))


def scored_rows(rows: Sequence[Row], metric: TextScore) -> Sequence[Row]:
    """The rows that a metric scores: those with references, unless it needs none."""
    return [row for row in rows if row["references"]] if getattr(metric, "needs_references", True) else rows


def columns_of(rows: Sequence[Row], image: Callable[[str], np.ndarray] | None = None) -> Columns:
    """Predictions, references and metadata, as metrics take them."""
    predictions, references = ([row[name] for row in rows] for name in ("caption", "references"))
    return predictions, references, [{"key": row["key"], **_picture(row, image), **row["metadata"]} for row in rows]


def _picture(row: Row, image: Callable[[str], np.ndarray] | None) -> dict[str, Any]:
    return {} if image is None else {"image": partial(image, row["key"])}


def shuffled_rows(rows: Sequence[Row], seed: int = 0) -> list[Row]:
    """Control: give every image the caption of another one, as from a captioner that sees shuffled images."""
    order = generator(seed, "shuffled captions").permutation(len(rows))
    captions = {int(order[i]): rows[int(order[i - 1])]["caption"] for i in range(len(rows))}
    return [{**row, "caption": captions[i]} for i, row in enumerate(rows)]


def write_predictions(folder: Path, name: str, rows: Sequence[Row]) -> Path:
    """Write `<name>.json` in COCO's results format, and `<name>_references.json` as COCO annotations.

    Image ids that are numbers in the data, like COCO's, stay numbers: pycocotools compares ids by value and type.
    Captions and references of regions also have their `box`, captions their `confidence`.
    """
    results = [
        {"image_id": _image_id(row), "caption": row["caption"], **_of_region(row, "box", "confidence")} for row in rows
    ]
    annotations = [
        {"id": f"{row['key']}#{i}", "image_id": _image_id(row), "caption": reference, **_of_region(row, "box")}
        for row in rows
        for i, reference in enumerate(row["references"])
    ]
    references = {"images": [{"id": _image_id(row)} for row in rows], "annotations": annotations}
    write_atomically(folder / f"{name}.json", json.dumps(results, ensure_ascii=False, indent=0))
    write_atomically(folder / f"{name}_references.json", json.dumps(references, ensure_ascii=False, indent=0))
    return folder / f"{name}.json"


def _of_region(row: Row, *names: str) -> dict[str, Any]:
    region = row["metadata"].get("region")
    return {name: region[name] for name in names if name in region} if isinstance(region, dict) else {}


def _image_id(row: Row) -> str | int:
    """The metadata's "image_id" if the key was made from it, in the data's type; else the key."""
    image_id = row["metadata"].get("image_id")
    return image_id if isinstance(image_id, int) and str(image_id) == row["key"] else row["key"]


def provenance(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What to quote with the numbers: encoder, prompt and truncation, for each metric that has them."""
    return {name: metric.provenance() for name, metric in metrics.items() if hasattr(metric, "provenance")}
