"""What a run is, in the lines that stand above everything else it says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn

from capkit.data.datamodule import CaptionDataModule
from capkit.optim.schedules import steps_of
from capkit.train.train_module import TrainModule
from capkit.utils.console import header

PRECISIONS = {"32-true": "float32", "64-true": "float64", "bf16-mixed": "bf16 mixed", "16-mixed": "fp16 mixed"}


def print_header(
    trainer: pl.Trainer,
    module: TrainModule,
    data: CaptionDataModule,
    run_dir: Path,
    trains: bool = True,
    more: Mapping[str, str] | None = None,
) -> None:
    """Device, precision, model, sizes of the data's splits, steps and run folder, on rank 0; `more` comes last."""
    rows = {"device": device(trainer, data.world_size), "model": model_size(module.model), "data": splits(data)}
    if trains:
        rows["steps"] = steps(trainer, module.schedule, data)
    header({**rows, "run folder": str(run_dir), **(more or {})})


def device(trainer: pl.Trainer, processes: int) -> str:
    """How many processes, on what, and in which precision."""
    precision = PRECISIONS.get(str(trainer.precision), str(trainer.precision))
    if trainer.strategy.root_device.type == "cuda":
        name = torch.cuda.get_device_name(trainer.strategy.root_device)
        return f"{processes} x {name}, {precision}"
    threads = torch.get_num_threads()
    many = "1 process" if processes == 1 else f"{processes} processes"
    return f"CPU, {many} of {threads} thread{'' if threads == 1 else 's'}, {precision}"


def num_parameters(module: nn.Module) -> tuple[int, int]:
    """Trainable and frozen ones."""
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return trainable, sum(p.numel() for p in module.parameters()) - trainable


def model_size(model: nn.Module) -> str:
    trainable, frozen = num_parameters(model)
    held = f", {frozen:,} of them frozen" if frozen else ""
    return f"{type(model).__name__}, {trainable + frozen:,} parameters{held}"


def splits(data: CaptionDataModule) -> str:
    """The images of each split that there is."""
    there = {split: source for split, source in data.sources.items() if source is not None}
    sizes = ", ".join(f"{split} {len(source):,}" for split, source in there.items())
    kinds = dict.fromkeys(type(source).__name__ for source in there.values())
    return f"{' and '.join(kinds)}: {sizes} images"


def steps(trainer: pl.Trainer, schedule: Any, data: CaptionDataModule) -> str:
    total, per_epoch = trainer.max_steps, data.steps_per_epoch
    told = [f"{total:,} of {data.batch_size} images", f"{total / per_epoch:.2f} epochs of {per_epoch:,}"]
    warmup = steps_of(getattr(schedule, "warmup", 0), total)
    if warmup >= 1:
        told.append(f"warm-up {warmup:,.0f}")
    every = f"validation every {trainer.val_check_interval:,}" if trainer.limit_val_batches else "no validation"
    return "; ".join([*told, every])
