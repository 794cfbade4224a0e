"""Checkpoints by step: written under a temporary name, renamed when whole."""

import os
import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from capkit.errors import UsageError


def step_of(path: Path) -> int:
    match = re.fullmatch(r"step-(\d+)\.ckpt", path.name)
    return int(match[1]) if match else -1


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the highest step, or None."""
    found = [path for path in folder.glob("step-*.ckpt") if step_of(path) >= 0]
    return max(found, key=step_of, default=None)


class Checkpoints(Callback):
    """Saves `step-00000123.ckpt` after each `every_steps` optimizer steps and after the last one; keeps the newest.

    With `monitor` the checkpoint with the best value seen at a validation is also kept, as `best.ckpt`. Names hold no
    "=", so that they can be typed as overrides.
    """

    def __init__(
        self, every_steps: int = 1000, keep_last: int = 2, monitor: str | None = None, mode: str = "max"
    ) -> None:
        if every_steps < 1 or keep_last < 1:
            raise UsageError(f"every_steps and keep_last must be 1 or more; got {every_steps} and {keep_last}")
        if mode not in ("max", "min"):
            raise UsageError(f"mode must be max or min; got {mode!r}")
        self.every_steps, self.keep_last, self.monitor, self.mode = every_steps, keep_last, monitor, mode
        self.folder = Path("checkpoints")
        self.best: float | None = None

    def attach(self, folder: Path) -> None:
        self.folder = folder

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        step = trainer.global_step
        if step % self.every_steps == 0 or step >= trainer.max_steps:
            self._save(trainer, self.folder / f"step-{step:08d}.ckpt")
            self._retire(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.monitor is None or trainer.sanity_checking:
            return
        if self.monitor not in trainer.callback_metrics:
            raise UsageError(
                f"callback.checkpoints.monitor={self.monitor} is not logged; "
                f"logged: {', '.join(sorted(trainer.callback_metrics))}"
            )
        value = float(trainer.callback_metrics[self.monitor])
        if self.best is None or (value > self.best if self.mode == "max" else value < self.best):
            self.best = value
            self._save(trainer, self.folder / "best.ckpt")

    def _save(self, trainer: pl.Trainer, path: Path) -> None:
        """All ranks take part; the rename makes the checkpoint visible only when it is whole."""
        temporary = path.with_name(f".{path.name}.tmp")
        trainer.save_checkpoint(temporary)
        if trainer.is_global_zero:
            if not temporary.exists():
                raise OSError(f"no checkpoint was written to {temporary}: is the disk full, or the folder read-only?")
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        trainer.strategy.barrier()

    def _retire(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            for path in sorted(self.folder.glob("step-*.ckpt"), key=step_of)[: -self.keep_last]:
                path.unlink()
