"""One of several evaluations that a task makes, each in a folder of its own that is not decoded again."""

import json
from pathlib import Path

from omegaconf import DictConfig

from capkit.checkpoint.files import identity, resolve_checkpoint
from capkit.config.instantiate import plain
from capkit.errors import UsageError
from capkit.run.folder import RunFolder, read_object
from capkit.train.evaluate_checkpoint import evaluate_checkpoint
from capkit.utils.files import write_atomically

ABOUT = "checkpoint.json"  # the hash of the checkpoint that a folder's captions were made by


def evaluated_cell(cell: DictConfig, confidence: float | None = None) -> dict[str, float]:
    """The numbers of `evaluate_checkpoint`: those of the cell's folder if it is whole, else decoded now.

    Raises UsageError where the folder was made by another config, or by a checkpoint with other weights under the same
    name; the captioner is not loaded then.
    """
    folder = RunFolder(cell.run_dir)
    made_by, now = folder.path / ABOUT, identity(resolve_checkpoint(Path(cell.ckpt)))
    if made_by.exists() and (before := read_object(made_by, "delete the folder").get("hash")) != now:
        raise UsageError(
            f"{folder.path} was made by another checkpoint: expected hash {before}, got {now} of {cell.ckpt}; delete "
            "the folder, or give another run_dir"
        )
    folder.check(plain(cell))
    if folder.report.exists():  # written last
        return folder.metrics()
    if not cell.dry_run:
        write_atomically(made_by, json.dumps({"hash": now}) + "\n")  # by every rank, which do not know each other yet
    return evaluate_checkpoint(cell, confidence)
