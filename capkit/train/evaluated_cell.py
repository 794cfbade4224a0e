"""One of several evaluations that a task makes, each in a folder of its own that is not decoded again."""

from pathlib import Path

from omegaconf import DictConfig

from capkit.checkpoint.files import identity
from capkit.checkpoint.run_checkpoints import resolve_checkpoint
from capkit.config.instantiate import plain
from capkit.errors import UsageError
from capkit.run.folder import RunFolder
from capkit.train.evaluate_checkpoint import evaluate_checkpoint
from capkit.train.made_by import note_checkpoint, noted_checkpoint


def evaluated_cell(cell: DictConfig, confidence: float | None = None) -> dict[str, float]:
    """The numbers of `evaluate_checkpoint`: those of the cell's folder if it is whole, else decoded now.

    Raises UsageError where the folder was made by another config, or by a checkpoint with other weights under the same
    name; the captioner is not loaded then.
    """
    folder = RunFolder(cell.run_dir)
    now = identity(resolve_checkpoint(Path(cell.ckpt)))
    if (before := noted_checkpoint(folder.path)) not in (None, now):
        raise UsageError(
            f"{folder.path} was made by another checkpoint: expected hash {before}, got {now} of {cell.ckpt}; delete "
            "the folder, or give another run_dir"
        )
    folder.check(plain(cell))
    if folder.report.exists():  # written last
        return folder.metrics()
    if not cell.dry_run:
        note_checkpoint(folder.path, cell.ckpt)  # by every rank, which do not know each other yet
    return evaluate_checkpoint(cell, confidence)
