"""Checkpoints by step: written under a temporary name, renamed when whole."""

import os
import re
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from capkit.callbacks.selection import Selection
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

    The best checkpoint seen at a validation is also kept, as `best.ckpt`, by one of two: `monitor`, a number that is
    logged ("val/cider") and its `mode`, max or min; or `select`, an expression that may set limits to other metrics, as
    in "max clip_score s.t. cider >= 0.9 * initial" (capkit/callbacks/selection.py; names without "val/"). Where a task
    validates before it trains, the start is a candidate too. Names hold no "=", so that they can be typed as overrides.
    """

    def __init__(
        self,
        every_steps: int = 1000,
        keep_last: int = 2,
        monitor: str | None = None,
        mode: str = "max",
        select: str | None = None,
    ) -> None:
        if every_steps < 1 or keep_last < 1:
            raise UsageError(f"every_steps and keep_last must be 1 or more; got {every_steps} and {keep_last}")
        if mode not in ("max", "min"):
            raise UsageError(f"mode must be max or min; got {mode!r}")
        if select is not None and (monitor is not None or mode != "max"):
            raise UsageError(
                f"the best checkpoint is chosen by callback.checkpoints.select, or by monitor and mode; got {select=}, "
                f"{monitor=}, {mode=}; give one"
            )
        self.every_steps, self.keep_last, self.monitor, self.select = every_steps, keep_last, monitor, select
        self.selection = None if monitor is None else Selection(mode, monitor)
        if select is not None:
            self.selection = Selection.parse(select)
        self.folder = Path("checkpoints")
        self.best: float | None = None
        self.initial: dict[str, float] = {}
        self.kept_step: int | None = None  # the checkpoint of this step outlives `keep_last`
        self.is_closed = False  # what is trained now is not to be saved
        self._start_is_best = False
        self._broken: list[str] = []

    def attach(self, folder: Path) -> None:
        self.folder = folder

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.ckpt"

    @property
    def best_path(self) -> Path | None:
        """The checkpoint that `select` chose; None where there is no `select`, or no validation kept to its limits."""
        return None if self.select is None or self.best is None else self.folder / "best.ckpt"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "initial": self.initial}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.initial = state_dict["best"], state_dict.get("initial", {})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._start_is_best:
            self._save(trainer, self.folder / "best.ckpt")
            self._start_is_best = False
        elif trainer.global_step > 0:
            self._recall_best(trainer.global_step)

    def _recall_best(self, step: int) -> None:
        """A run that died after its validation, before the next checkpoint: best.ckpt knows what the newest does not.

        A best.ckpt of a later step than `step` was chosen among validations that are still to come again.
        """
        path = self.folder / "best.ckpt"
        if not path.exists():
            return
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if checkpoint["global_step"] <= step:
            self.load_state_dict(checkpoint["callbacks"][self.state_key])

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if self.is_due(trainer):
            self.save(trainer)

    def is_due(self, trainer: pl.Trainer) -> bool:
        """Whether the step that was done last is to be saved."""
        step = trainer.global_step
        is_last = step >= trainer.max_steps or trainer.should_stop
        return not self.is_closed and (is_last or step % self.every_steps == 0)

    def save(self, trainer: pl.Trainer) -> None:
        """The checkpoint of the step that was done last. All ranks take part."""
        self._save(trainer, self.path(trainer.global_step))
        self._retire(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.selection is None or self.is_closed or trainer.sanity_checking:
            return
        values = self._values(trainer, self.selection.names)
        self.initial = self.initial or values
        self._broken = self.selection.broken(values, self.initial)
        value = values[self.selection.name]
        if self._broken or not self.selection.improves(value, self.best):
            return
        self.best = value
        if trainer.state.fn == TrainerFn.FITTING:
            self._save(trainer, self.folder / "best.ckpt")
        else:
            self._start_is_best = True  # there is no optimizer to save yet

    def _values(self, trainer: pl.Trainer, names: list[str]) -> dict[str, float]:
        """Numbers of a validation. Raises UsageError where one is not logged."""
        prefix = "val/" if self.monitor is None else ""
        logged = {
            name.removeprefix(prefix): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(prefix)
        }
        # A judge's metric logs a mean beside its other numbers: clip_score names clip_score_mean.
        by_name = {name.removesuffix("_mean"): value for name, value in logged.items()} | logged
        for name in names:
            if name not in by_name:
                key = f"select={self.select!r}: {name}" if self.monitor is None else f"monitor={name}"
                raise UsageError(f"callback.checkpoints.{key} is not logged; logged: {', '.join(sorted(logged))}")
        return {name: by_name[name] for name in names}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says so when no validation kept to the limits."""
        if self.select is not None and self.best is None and trainer.is_global_zero:
            warnings.warn(
                f"no best.ckpt: no validation kept to the limits of callback.checkpoints.select; at the last one "
                f"these were broken: {', '.join(self._broken) or 'none, but the value was NaN'}",
                stacklevel=2,
            )

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
                if step_of(path) != self.kept_step:
                    path.unlink()
