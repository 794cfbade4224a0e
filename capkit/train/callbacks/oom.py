"""Halves the micro-batch when a step does not fit into memory; the global batch stays. Keeps what evaluations cut."""

import json
import math
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from capkit.distributed.collectives import all_reduce_max, device_for_collectives, world_size
from capkit.distributed.zero import Zero
from capkit.errors import OutOfMemory, UsageError
from capkit.run.folder import RunFolder, read_object
from capkit.train.callbacks.recorder import Recorder
from capkit.utils.files import write_atomically

FILE = "memory.json"
EVALUATION = "eval_batch_size"


class OOMBackoff(Callback):
    """When a GPU's memory ends within a step, `micro_batch_size` (of a rollout `rollout_batch_size`) is halved.

    A single process does the step again from its start, and goes on with the smaller size. One rank of several cannot:
    the others wait for it within the exchange of gradients. All end with status 82, and the next attempt of the run
    takes the smaller size from the run folder; ranks that capkit started are started again at once.

    A batch of an evaluation is cut by each rank alone (`TrainModule.map_in_chunks`). At the end of the evaluation all
    ranks take over the smallest `eval_batch_size` of any.

    Checkpoints hold the sizes, and rows of metrics.jsonl tell them when they change: `train/micro_batch_size`. Losses
    are the same up to rounding; dropout draws other numbers, for it belongs to a micro-batch.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.folder: RunFolder | None = None
        self._trainer: pl.Trainer | None = None

    def attach(self, folder: RunFolder) -> None:
        self.folder = folder

    def state_dict(self) -> dict[str, Any]:
        return {"sizes": self.sizes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sizes = dict(state_dict["sizes"])

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._trainer = trainer
        pl_module.on_shrink = self.shrink  # type: ignore[assignment]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes over what the checkpoint, or the attempt before, found to fit."""
        for name, size in self._left_by_ranks().items():
            self.sizes[name] = min(size, self.sizes.get(name, size))
        for name, size in self.sizes.items():
            configured = getattr(pl_module, name)
            setattr(pl_module, name, size if configured is None else min(size, configured))
        if self.sizes:
            self._record(trainer)

    def _left_by_ranks(self) -> dict[str, int]:
        file = None if self.folder is None else self.folder.path / FILE
        if file is None or not file.exists():
            return {}
        remedy = "delete it: sizes are then found anew"
        sizes = read_object(file, remedy)
        if not all(isinstance(size, int) and size > 0 for size in sizes.values()):
            raise UsageError(f"{file}: expected sizes, whole numbers of 1 or more, got {sizes}; {remedy}")
        return sizes

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._agree(trainer, pl_module)

    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._agree(trainer, pl_module)

    def _agree(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        own = float(getattr(pl_module, EVALUATION) or math.inf)
        smallest = -float(all_reduce_max(torch.tensor(-own, device=device_for_collectives())))
        if smallest < self.sizes.get(EVALUATION, math.inf):
            self.sizes[EVALUATION] = int(smallest)
            setattr(pl_module, EVALUATION, int(smallest))
            self._record(trainer)

    def shrink(self, name: str, size: int, why: str) -> None:
        """Raises OutOfMemory where this attempt cannot go on with the smaller size."""
        assert self._trainer is not None
        self.sizes[name] = size
        told = f"step {self._trainer.global_step + 1} does not fit into memory ({why})"
        if world_size() == 1 and not isinstance(self._trainer.strategy, Zero):
            warnings.warn(f"{told}; it is done again with {name}={size}", stacklevel=2)
            self._record(self._trainer)
            return
        if self.folder is not None:
            sizes = {**self._left_by_ranks(), **self.sizes}
            write_atomically(self.folder.path / FILE, json.dumps(sizes) + "\n")
        raise OutOfMemory(f"{told}; the same command goes on with {name}={size}")

    def _record(self, trainer: pl.Trainer) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Recorder):
                sizes = {f"train/{name}": float(size) for name, size in self.sizes.items()}
                callback.record(trainer, trainer.global_step, sizes)
