"""Callbacks of runs that are broken: which images each rank saw, a loss that is NaN at one step, memory that ends."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn


class BatchKeys(Callback):
    """A line a step in `batches/RANK.jsonl` of the run folder. Steps done again after a fault are listed again."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        path = Path(trainer.default_root_dir, "batches", f"{trainer.global_rank}.jsonl")
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps({"step": trainer.global_step, "keys": batch.keys}) + "\n")


class MemoryEnds(Callback):
    """Once the run folder holds `memory-ends-RANK`, that rank's next update asks for more than any GPU has."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        path = Path(trainer.default_root_dir, f"memory-ends-{trainer.global_rank}")
        if not path.exists():
            return
        path.unlink()

        def ask(*args: Any) -> None:
            if not torch.is_grad_enabled():  # a rollout
                return
            for hook in hooks:
                hook.remove()
            if pl_module.device.type == "cpu":
                raise torch.OutOfMemoryError("no memory is left, it was said")
            torch.empty(2**50, dtype=torch.uint8, device=pl_module.device)

        # Whichever layer an update runs first: it need not call the model as a whole.
        layers = [module for module in pl_module.model.modules() if isinstance(module, nn.Linear)]  # type: ignore[operator, union-attr]
        hooks = [layer.register_forward_pre_hook(ask) for layer in layers]


class NaNPixels(Callback):
    """At one step, a picture of rank 0 is NaN, and so are the loss and the gradient of all ranks."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step and trainer.is_global_zero:
            batch.pixels[0] = torch.nan
