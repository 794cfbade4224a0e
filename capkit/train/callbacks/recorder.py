"""Writes what training and validation log to metrics.jsonl, and passes it to the loggers."""

import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from capkit.run.folder import RunFolder
from capkit.types import CaptionBatch
from capkit.utils.ranges import PositiveInt, check_ranges


@check_ranges
class Recorder(Callback):
    """Every `every_steps` optimizer steps, records the loss and the objective's numbers, averaged since the last row.

    Names in the sections "reward" and "rl" are kept; all others go to the section "train". Steps that the guard skipped
    are left out of averages. Checkpoints hold the sums so far, so that a resumed run writes the same rows as an
    uninterrupted one, except for the speed.
    """

    def __init__(self, every_steps: PositiveInt = 10) -> None:
        self.every_steps = every_steps
        self.folder: RunFolder | None = None
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = 0
        self._images = 0
        self._since = 0.0

    def attach(self, folder: RunFolder) -> None:
        self.folder = folder

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self._sums, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sums, self._steps = dict(state_dict["sums"]), state_dict["steps"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restart_clock()

    def _restart_clock(self) -> None:
        self._images, self._since = 0, time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: CaptionBatch, batch_idx: int
    ) -> None:
        if "skipped" not in outputs:
            for name, value in outputs.items():
                self._sums[name] = self._sums.get(name, torch.zeros_like(value)).to(value.device) + value
            self._steps += 1
        self._images += len(batch) * trainer.world_size
        step = trainer.global_step
        if step % self.every_steps and step < trainer.max_steps:
            return
        numbers = {_with_section(name): float(value) / self._steps for name, value in self._sums.items()}
        numbers["train/images_per_second"] = self._images / max(time.monotonic() - self._since, 1e-9)
        numbers["train/lr"] = pl_module.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        self.record(trainer, step, numbers)
        self._sums, self._steps = {}, 0
        self._restart_clock()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            numbers = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
            self.record(trainer, trainer.global_step, numbers)
            self._restart_clock()

    def record(self, trainer: pl.Trainer, step: int, numbers: dict[str, float]) -> None:
        if trainer.is_global_zero and self.folder is not None:
            self.folder.append(step, numbers)
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step)


def _with_section(name: str) -> str:
    return name if name.startswith(("reward/", "rl/")) else f"train/{name}"
