"""Lightning CheckpointIO plugin that writes and reads capkit's checkpoint folders."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from capkit.checkpoint.files import load_checkpoint, remove_checkpoint, write_checkpoint


class CheckpointFolders(CheckpointIO):
    """Replaces Lightning's own, which treats a PermissionError as success and builds the whole file in memory first."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Raises CheckpointNotSavedError, on the one rank that writes."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Always to the CPU and as plain data, ignoring both arguments. Integrity was checked when it was chosen."""
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        remove_checkpoint(Path(path))


def use_folders(trainer: pl.Trainer) -> None:
    """Make the trainer write and read checkpoint folders."""
    trainer.strategy.checkpoint_io = CheckpointFolders()
