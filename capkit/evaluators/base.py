"""Protocol of evaluators of dual encoders, and the two result files that each of them writes."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from capkit.data.datamodule import CaptionDataModule
from capkit.models.dual_encoders.base import DualEncoder
from capkit.utils.files import write_atomically, write_json


@runtime_checkable
class Evaluator(Protocol):
    """Computes numbers of a dual encoder, with names that do not include the split. Runs in one process.

    Writes `<name>.jsonl` (one row per item) and `<name>.json` (the numbers and their provenance) into `folder`, and
    caches embeddings in `folder/embeddings`, so that an interrupted run continues where it stopped.
    """

    def __call__(self, encoder: DualEncoder, data: CaptionDataModule, folder: Path) -> dict[str, float]: ...


def write_results(
    folder: Path, name: str, rows: Iterable[Mapping[str, Any]], numbers: Mapping[str, float], quoted: Mapping[str, Any]
) -> None:
    """Write both result files, each atomically."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(folder / f"{name}.jsonl", lines)
    content = {"numbers": dict(numbers), "provenance": dict(quoted)}
    write_json(folder / f"{name}.json", content, ensure_ascii=False)


def named(name: str, numbers: Mapping[str, float]) -> dict[str, float]:
    """Prefix numbers with an evaluator's name, so that several evaluators fit in one run."""
    return {f"{name}_{key}": value for key, value in numbers.items()}
