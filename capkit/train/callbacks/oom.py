"""Halves the micro-batch size when a step runs out of memory, keeping the global batch; shares evaluation sizes."""

import json
import math
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from capkit.distributed.collectives import all_reduce_max
from capkit.errors import OutOfMemory, UsageError
from capkit.run.folder import RunFolder, read_object
from capkit.train.callbacks.find import callbacks_of
from capkit.train.callbacks.recorder import Recorder
from capkit.train.train_module import TrainModule
from capkit.utils.files import write_atomically

FILE = "memory.json"
EVALUATION = "eval_batch_size"


class OOMBackoff(Callback):
    """Halves `micro_batch_size` (`rollout_batch_size` in a rollout) when a step runs out of GPU memory.

    A single process repeats the step from its start with the smaller size. One rank of several cannot, since the others
    wait for it in a gradient all-reduce: all ranks end with status 82, and the run's next attempt reads the smaller
    size from the run folder. Ranks that capkit started are restarted at once.

    In an evaluation, each rank splits batches on its own (`TrainModule.map_in_chunks`); at the end, all ranks adopt the
    smallest `eval_batch_size` of any.

    Checkpoints store the sizes; metrics.jsonl records changes as `train/micro_batch_size`. Losses are the same up to
    rounding, except that dropout draws other masks, since these depend on the micro-batches.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.folder: RunFolder | None = None
        self._trainer: pl.Trainer | None = None
        self._module: TrainModule | None = None

    def attach(self, folder: RunFolder) -> None:
        self.folder = folder

    def state_dict(self) -> dict[str, Any]:
        return {"sizes": self.sizes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sizes = dict(state_dict["sizes"])

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, TrainModule)
        self._trainer, self._module = trainer, pl_module
        pl_module.on_shrink = self.shrink

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Adopt the sizes that the checkpoint, or the previous attempt, found to fit."""
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
        remedy = "delete it: sizes are then found again"
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
        smallest = -float(all_reduce_max(torch.tensor(-own)))
        if smallest < self.sizes.get(EVALUATION, math.inf):
            self.sizes[EVALUATION] = int(smallest)
            setattr(pl_module, EVALUATION, int(smallest))
            self._record(trainer)

    def shrink(self, name: str, size: int, why: str) -> None:
        """Record a smaller size. Raises OutOfMemory if this attempt cannot continue with it."""
        assert self._trainer is not None and self._module is not None
        self.sizes[name] = size
        told = f"step {self._trainer.global_step + 1} does not fit into memory ({why})"
        if self._module.strategy.retries_steps:
            warnings.warn(f"{told}; retrying with {name}={size}", stacklevel=2)
            self._record(self._trainer)
            return
        if self.folder is not None:
            sizes = {**self._left_by_ranks(), **self.sizes}
            write_atomically(self.folder.path / FILE, json.dumps(sizes) + "\n")
        raise OutOfMemory(f"{told}; the same command continues with {name}={size}")

    def _record(self, trainer: pl.Trainer) -> None:
        sizes = {f"train/{name}": float(size) for name, size in self.sizes.items()}
        for recorder in callbacks_of(trainer, Recorder):
            recorder.record(trainer, trainer.global_step, sizes)
