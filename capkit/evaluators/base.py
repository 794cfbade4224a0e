"""The protocol of evaluators of dual encoders, and the two files that each of them leaves behind."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from capkit.data.datamodule import CaptionDataModule
from capkit.models.dual_encoders.base import DualEncoder
from capkit.utils.files import write_atomically


@runtime_checkable
class Evaluator(Protocol):
    """Numbers of a dual encoder, named without the split. One process calls it: nothing is communicated.

    It writes `<name>.jsonl` (one row an item) and `<name>.json` (the numbers and what they must be quoted with) into
    `folder`, and keeps embeddings in `folder/embeddings`: a run that was killed goes on where it was.
    """

    def __call__(self, encoder: DualEncoder, data: CaptionDataModule, folder: Path) -> dict[str, float]: ...


def provenance(encoder: Any) -> dict[str, Any]:
    """What every number of this encoder must be quoted with. A sentence encoder has no prompt."""
    return {"scorer": encoder.name, "prompt": getattr(encoder, "prompt", ""), "max_length": encoder.max_length}


def write_results(
    folder: Path, name: str, rows: Iterable[Mapping[str, Any]], numbers: Mapping[str, float], quoted: Mapping[str, Any]
) -> None:
    """Both files, each written under another name first."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(folder / f"{name}.jsonl", lines)
    text = json.dumps({"numbers": dict(numbers), "provenance": dict(quoted)}, ensure_ascii=False, indent=1)
    write_atomically(folder / f"{name}.json", text + "\n")


def named(name: str, numbers: Mapping[str, float]) -> dict[str, float]:
    """Numbers under an evaluator's name, so that several fit in one run."""
    return {f"{name}_{key}": value for key, value in numbers.items()}
