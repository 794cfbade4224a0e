"""Callbacks of the runs that are broken: which images each rank saw, and a loss that is NaN at one step."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback


class BatchKeys(Callback):
    """A line a step in `batches/RANK.jsonl` of the run folder. Steps done again after a fault are listed again."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        path = Path(trainer.default_root_dir, "batches", f"{trainer.global_rank}.jsonl")
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps({"step": trainer.global_step, "keys": batch.keys}) + "\n")


class NaNPixels(Callback):
    """At one step, a picture of rank 0 is NaN, and so are the loss and the gradient of all ranks."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step and trainer.is_global_zero:
            batch.pixels[0] = torch.nan
