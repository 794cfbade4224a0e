"""Feedback between training and its curriculum."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from capkit.data.curricula.base import Grouped, Guided
from capkit.data.datamodule import CaptionDataModule
from capkit.errors import UsageError


class CurriculumFeedback(Callback):
    """After each step, passes the watched number to a guided curriculum, and logs the curriculum's `bag_size`.

    Runs before all callbacks that log or save, so that a checkpoint includes what the curriculum saw of its step.
    """

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, CaptionDataModule):
            return
        curriculum, step = data.curriculum, trainer.global_step
        if isinstance(curriculum, Grouped):
            outputs["bag_size"] = torch.tensor(float(curriculum.bag_size(step - 1)))
        if isinstance(curriculum, Guided) and curriculum.watched is not None:
            curriculum.observe(step, _number(outputs, curriculum.watched))


def _number(outputs: Any, name: str) -> float:
    """A logged number of a step; names without a section belong to the section train."""
    key = name.removeprefix("train/")
    if key not in outputs:
        logged = sorted(known if "/" in known else f"train/{known}" for known in outputs)
        raise UsageError(f"curriculum.level_of={name} is not logged; choose one of: {', '.join(logged)}")
    return float(outputs[key])
