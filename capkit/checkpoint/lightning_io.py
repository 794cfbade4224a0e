"""Checkpoint folders as Lightning's trainer writes and reads them."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from capkit.checkpoint.files import load_checkpoint, remove_checkpoint, write_checkpoint


class CheckpointFolders(CheckpointIO):
    """Why not Lightning's own: it takes a PermissionError for success, and builds the whole file in memory first."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Raises CheckpointNotSavedError, on the one rank that writes."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """On the CPU and as plain data, whatever is asked for. Whether it is whole was found out when it was chosen."""
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        remove_checkpoint(Path(path))


def use_folders(trainer: pl.Trainer) -> None:
    """From here on this trainer's checkpoints are folders."""
    trainer.strategy.checkpoint_io = CheckpointFolders()
