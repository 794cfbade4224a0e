"""From generated captions to files and numbers: predictions are written before they are scored."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from capkit.distributed.collectives import broadcast_object, gather_objects, rank
from capkit.metrics.base import TextScore
from capkit.types import Row
from capkit.utils.console import phase
from capkit.utils.files import write_atomically
from capkit.utils.rng import generator


def gather_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows of all ranks, each key once, ordered by key: the same on every rank and for every number of ranks."""
    by_key = {row["key"]: row for part in gather_objects(list(rows)) for row in part}
    return [by_key[key] for key in sorted(by_key)]


def score_rows(
    rows: Sequence[Row],
    metrics: Mapping[str, TextScore],
    image: Callable[[str], np.ndarray] | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """All metrics' numbers, computed on rank 0 and equal on every rank.

    Rows without references are left out, but for metrics whose `needs_references` is False. Metadata carries the row's
    "key" and, where `image` reads pictures, an "image" that is read when a judge wants it. Once
    `is_stopping`, nobody will look at the numbers, and metrics that are left are left out.
    """
    numbers: dict[str, float] = {}
    if rank() == 0:
        with_references = [row for row in rows if row["references"]]
        for name, metric in metrics.items():
            if is_stopping():
                break
            scored = with_references if getattr(metric, "needs_references", True) else rows
            with phase(f"scoring {name}"):
                numbers.update(metric.score(*_columns(scored, image)) if scored else {})
    return broadcast_object(numbers)


def _columns(
    rows: Sequence[Row], image: Callable[[str], np.ndarray] | None
) -> tuple[list[str], list[list[str]], list[dict[str, Any]]]:
    """Predictions, references and metadata, as metrics take them."""
    predictions, references = ([row[name] for row in rows] for name in ("caption", "references"))
    return predictions, references, [{"key": row["key"], **_picture(row, image), **row["metadata"]} for row in rows]


def _picture(row: Row, image: Callable[[str], np.ndarray] | None) -> dict[str, Any]:
    return {} if image is None else {"image": partial(image, row["key"])}


def shuffled_rows(rows: Sequence[Row], seed: int = 0) -> list[Row]:
    """Every image with the caption of another one: what a captioner that sees shuffled images would write."""
    order = generator(seed, "shuffled captions").permutation(len(rows))
    captions = {int(order[i]): rows[int(order[i - 1])]["caption"] for i in range(len(rows))}
    return [{**row, "caption": captions[i]} for i, row in enumerate(rows)]


def write_predictions(folder: Path, name: str, rows: Sequence[Row]) -> Path:
    """`<name>.json` in COCO's results format, and `<name>_references.json` as COCO annotations.

    An id that was a number in the data, as COCO's are, is a number here: pycocotools compares ids by value and type.
    """
    results = [{"image_id": _image_id(row), "caption": row["caption"]} for row in rows]
    annotations = [
        {"id": f"{row['key']}#{i}", "image_id": _image_id(row), "caption": reference}
        for row in rows
        for i, reference in enumerate(row["references"])
    ]
    references = {"images": [{"id": _image_id(row)} for row in rows], "annotations": annotations}
    write_atomically(folder / f"{name}.json", json.dumps(results, ensure_ascii=False, indent=0))
    write_atomically(folder / f"{name}_references.json", json.dumps(references, ensure_ascii=False, indent=0))
    return folder / f"{name}.json"


def _image_id(row: Row) -> str | int:
    """The id that the key was made of (metadata "image_id"), as the data has it; the key where it is another name."""
    image_id = row["metadata"].get("image_id")
    return image_id if isinstance(image_id, int) and str(image_id) == row["key"] else row["key"]


def provenance(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What numbers have to be quoted with: the judge, its prompt and its truncation, for each metric that has one."""
    return {name: metric.provenance() for name, metric in metrics.items() if hasattr(metric, "provenance")}
