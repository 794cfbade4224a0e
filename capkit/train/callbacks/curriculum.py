"""Tells a curriculum how training goes, and the run what the curriculum gives."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from capkit.data.curricula.base import Grouped, Guided
from capkit.data.datamodule import CaptionDataModule
from capkit.errors import UsageError


class CurriculumFeedback(Callback):
    """After each step: a guided curriculum gets the number that it watches, and `bag_size` joins what is logged.

    It comes before all callbacks that log or save: a checkpoint holds what the curriculum saw of its step.
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
    """A logged number of a step; those without a section are logged in the section train."""
    key = name.removeprefix("train/")
    if key not in outputs:
        logged = sorted(known if "/" in known else f"train/{known}" for known in outputs)
        raise UsageError(
            f"curriculum.level_of={name} is not logged; logged: {', '.join(logged)}; a level is that of one of these"
        )
    return float(outputs[key])
