"""task=fit: trains a captioner, captions the held-out split, scores it and writes the run folder."""

import json
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from rich.console import Console

from capkit.callbacks.checkpoints import Checkpoints, newest_checkpoint
from capkit.callbacks.recorder import Recorder
from capkit.data.datamodule import CaptionDataModule
from capkit.distributed import rank
from capkit.errors import UsageError
from capkit.evaluation import Row, describe, score_rows, shuffled_rows, write_predictions
from capkit.module import CaptionModule
from capkit.report import write_report
from capkit.run_folder import RunFolder, default_run_dir, write_atomically
from capkit.tasks.build import (
    applicable,
    build,
    build_all,
    build_model,
    build_parts,
    checkpoint_extras,
    encoder_of,
    load_weights,
    plain,
    read_checkpoint,
)
from capkit.tasks.dry_run import print_plan
from capkit.tasks.generation import caption_split
from capkit.tasks.quiet import quiet_libraries
from capkit.tasks.ranks import start_ranks


class SaveExtras(Callback):
    """Adds to each checkpoint what is needed to build the captioner from the file alone."""

    def __init__(self) -> None:
        self.extras: dict[str, Any] = {}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["capkit"] = self.extras


def run(cfg: DictConfig) -> dict[str, float]:
    """Trains, evaluates on the test split and returns the final numbers, as in metrics.json."""
    if start_ranks(cfg):
        return RunFolder(cfg.run_dir).metrics() if cfg.run_dir else {}
    quiet_libraries()
    torch.set_num_threads(cfg.torch_threads or torch.get_num_threads())
    folder = RunFolder(cfg.run_dir or default_run_dir(cfg.name))
    resume = checkpoint_to_resume(cfg, folder)
    parts = build_parts(cfg)
    data: CaptionDataModule = build(cfg.data)
    trainer, extras = build_trainer(cfg, folder, data)
    if trainer.world_size > 1:
        trainer.strategy.setup_environment()  # ranks know each other from here on
    if rank() == 0 and not cfg.dry_run:
        folder.open(plain(cfg))
    if trainer.local_rank == 0:
        data.prepare_data()
    trainer.strategy.barrier()
    model = build_model(cfg.model, lambda: data.captions("train"), cfg.seed)
    parts["metrics"] = applicable(parts["metrics"], data.source("test").record(0).metadata)
    module = CaptionModule(model, **parts)
    extras.extras = checkpoint_extras(cfg, module)
    data.attach(encode=encoder_of(model, data.max_length), run_dir=folder.path)
    if cfg.dry_run:
        print_plan(module, data, trainer.max_steps, str(trainer.precision))
        return {}
    started_at = 0
    if resume is not None:
        started_at = read_checkpoint(resume)["global_step"]
    elif cfg.init_from is not None:
        load_weights(module, read_checkpoint(Path(cfg.init_from)))
    if started_at >= trainer.max_steps and folder.report.exists():
        print(f"{folder.path}: all {started_at} steps were done before; the numbers stand in {folder.metrics_file}")
        return folder.metrics()
    if resume is None and cfg.controls:
        evaluate_split(trainer, module, data, folder, "test", prefix="test/untrained", limit=cfg.controls)
    train(trainer, module, data, folder, resume, started_at)
    rows = evaluate_split(trainer, module, data, folder, "test", prefix="test", limit=cfg.eval_limit, controls=True)
    finish(cfg, trainer, folder, data, rows, "test")
    return folder.metrics()


def num_steps(cfg: DictConfig, data: CaptionDataModule) -> int:
    """Optimizer steps of the run: `max_steps`, or `max_epochs` times the steps of one epoch."""
    steps, epochs = cfg.max_steps, cfg.max_epochs
    if (steps is None) == (epochs is None):
        raise UsageError(
            f"the run's length is wanted once; got max_steps={steps} and max_epochs={epochs}; "
            "give one and set the other to null"
        )
    return int(steps) if steps is not None else max(1, round(epochs * data.steps_per_epoch))


def checkpoint_to_resume(cfg: DictConfig, folder: RunFolder) -> Path | None:
    """`resume=auto`: the newest checkpoint of the run folder; a path: that one; false: none."""
    if cfg.resume is False:
        if folder.config_file.exists():
            raise UsageError(f"resume=false starts anew, but {folder.path} holds a run; give another run_dir")
        return None
    if cfg.resume in ("auto", True):
        return newest_checkpoint(folder.checkpoints)
    if not Path(cfg.resume).is_file():
        raise UsageError(f"resume wants auto, false or a checkpoint file; {cfg.resume} does not exist")
    return Path(cfg.resume)


def build_trainer(cfg: DictConfig, folder: RunFolder, data: CaptionDataModule) -> tuple[pl.Trainer, SaveExtras]:
    """Lightning sees one epoch of all steps: the curriculum counts epochs, and a resume is always at a step."""
    total_steps = num_steps(cfg, data)
    callbacks = build_all(cfg.callback)
    for callback in callbacks.values():
        if isinstance(callback, Recorder):
            callback.attach(folder)
        if isinstance(callback, Checkpoints):
            callback.attach(folder.checkpoints)
    loggers = build_all(cfg.logger)
    for logger in loggers.values():
        logger.attach(folder, plain(cfg))
    extras = SaveExtras()
    trainer = build(
        cfg.trainer,
        max_epochs=1,
        max_steps=total_steps,
        val_check_interval=min(cfg.val_every or data.steps_per_epoch, total_steps),
        callbacks=[*callbacks.values(), extras],
        logger=list(loggers.values()),
        default_root_dir=str(folder.path),
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    return trainer, extras


def train(
    trainer: pl.Trainer,
    module: CaptionModule,
    data: CaptionDataModule,
    folder: RunFolder,
    resume: Path | None,
    started_at: int,
) -> None:
    """Optimizer steps from `started_at` to the last; their wall time is added to `train/seconds`."""
    if resume is not None and rank() == 0:
        folder.append(started_at, {"resumed_from": started_at})
        print(f"continuing {folder.path} from step {started_at}")
    data.set_steps(started_at, trainer.max_steps)
    start = time.monotonic()
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True if resume else None)
    seconds = folder.metrics().get("train/seconds", 0.0) + time.monotonic() - start
    if rank() == 0:
        folder.write_metrics({"train/seconds": round(seconds, 2), "train/steps": trainer.max_steps})


def evaluate_split(
    trainer: pl.Trainer,
    module: CaptionModule,
    data: CaptionDataModule,
    folder: RunFolder,
    split: str,
    prefix: str,
    limit: int | None = None,
    controls: bool = False,
) -> list[Row]:
    """Captions a split, writes the predictions, scores them; with `controls` also with shuffled images."""
    rows = caption_split(trainer, module, data, split, limit)
    if rank() == 0:
        write_predictions(folder.predictions, prefix.replace("/", "_"), rows)
    image = data.image_reader(split)
    numbers = {f"{prefix}/{name}": value for name, value in score_rows(rows, module.metrics, image).items()}
    if controls:
        shuffled = score_rows(shuffled_rows(rows), module.metrics, image)
        numbers |= {f"{prefix}/shuffled/{name}": value for name, value in shuffled.items()}
    if rank() == 0:
        folder.write_metrics(numbers)
        if judges := describe(module.metrics):
            write_atomically(folder.path / "judges.json", json.dumps(judges, indent=1) + "\n")
    return rows


def finish(
    cfg: DictConfig,
    trainer: pl.Trainer,
    folder: RunFolder,
    data: CaptionDataModule,
    rows: list[Row],
    split: str,
    num_samples: int = 24,
) -> None:
    """The report, the loggers' last numbers, and where to find what was written."""
    if rank() != 0:
        return
    image = data.image_reader(split)
    images = [image(row["key"]) for row in rows[:num_samples]]
    write_report(folder, cfg.name, list(zip(rows[:num_samples], images, strict=True)))
    numbers = folder.metrics()
    for logger in trainer.loggers:
        logger.log_metrics(numbers, trainer.max_steps)
        logger.log_samples(rows[:num_samples], images)  # type: ignore[attr-defined]
        logger.finish()  # type: ignore[attr-defined]
    console = Console()
    for name in sorted(key for key in numbers if key.count("/") == 1):
        console.print(f"  {name:<24} {numbers[name]:.4f}", highlight=False)
    console.print(f"run folder: {folder.path}\nreport:     {folder.report}", highlight=False, soft_wrap=True)
