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
        self._steps: torch.Tensor = torch.zeros(())
        self._images = 0
        self._since = 0.0

    def attach(self, folder: RunFolder) -> None:
        self.folder = folder

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self._sums, "steps": int(self._steps)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sums, self._steps = dict(state_dict["sums"]), torch.tensor(float(state_dict["steps"]))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restart_clock()

    def _restart_clock(self) -> None:
        self._images, self._since = 0, time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: CaptionBatch, batch_idx: int
    ) -> None:
        self._add(outputs)
        self._images += len(batch) * trainer.world_size
        step = trainer.global_step
        if step % self.every_steps and step < trainer.max_steps:
            return
        numbers = self._means()
        numbers["train/images_per_second"] = self._images / max(time.monotonic() - self._since, 1e-9)
        numbers["train/lr"] = pl_module.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        self.record(trainer, step, numbers)
        self._sums, self._steps = {}, torch.zeros(())
        self._restart_clock()

    def _add(self, outputs: Any) -> None:
        """Add a step's numbers, on the device, for which nobody waits; nothing of a step that was left out."""
        skipped = outputs["skipped"] > 0
        for name, value in outputs.items():
            if name == "skipped":
                continue
            if value.device != skipped.device:  # known to the host: a fill, since a copy would wait for the device
                value = torch.full((), float(value), dtype=value.dtype, device=skipped.device)
            kept = torch.where(skipped, torch.zeros_like(value), value)
            self._sums[name] = self._sums.get(name, torch.zeros_like(kept)).to(kept.device) + kept
        self._steps = self._steps.to(skipped.device) + (~skipped).float()

    def _means(self) -> dict[str, float]:
        """Of the steps since the last row, by one transfer from the device; none if all of them were left out."""
        names = list(self._sums)
        steps, *sums = torch.stack([self._steps.double(), *(self._sums[name].double() for name in names)]).tolist()
        return {_with_section(name): total / steps for name, total in zip(names, sums, strict=True)} if steps else {}

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
