"""A callback that lists which images each rank saw at each step: what an exact resume is compared by."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
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
