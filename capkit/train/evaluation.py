"""Captions of a split or of a loader, on every rank."""

import json
from collections.abc import Sequence

import lightning.pytorch as pl
from omegaconf import DictConfig

from capkit.data.datamodule import CaptionDataModule
from capkit.data.loader import CaptionLoader
from capkit.distributed.collectives import rank
from capkit.metrics.scoring import gather_rows, provenance, score_rows, shuffled_rows, write_predictions
from capkit.reports.page import write_report
from capkit.run.folder import RunFolder
from capkit.train.captioner_module import CaptionerModule
from capkit.train.session import print_numbers
from capkit.types import Row
from capkit.utils.console import phase
from capkit.utils.files import write_atomically


def caption_loader(trainer: pl.Trainer, module: CaptionerModule, loader: CaptionLoader) -> list[Row]:
    """One row per image of the loader (key, caption, references, metadata), from all ranks, ordered by key."""
    batches = trainer.predict(module, dataloaders=loader)
    return gather_rows([row for batch in batches or [] for row in batch])


def caption_split(
    trainer: pl.Trainer, module: CaptionerModule, data: CaptionDataModule, split: str, limit: int | None = None
) -> list[Row]:
    """The first `limit` images of a split, or all of them."""
    data.prepare_data()
    data.setup(split)
    loader = data.eval_dataloader(split, limit)
    num_images = data.num_images(split) if limit is None else min(limit, data.num_images(split))
    with phase(f"captioning {split}", num_images):
        return caption_loader(trainer, module, loader)


def evaluate_split(
    trainer: pl.Trainer,
    module: CaptionerModule,
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
        if judges := provenance(module.metrics):
            write_atomically(folder.path / "judges.json", json.dumps(judges, indent=1) + "\n")
    return rows


def finish(
    cfg: DictConfig,
    trainer: pl.Trainer,
    folder: RunFolder,
    data: CaptionDataModule,
    rows: list[Row],
    split: str,
    next_tasks: Sequence[str] = (),
    num_samples: int = 24,
) -> None:
    """The report, the loggers' last numbers, and where to find what was written."""
    if rank() != 0:
        return
    image = data.image_reader(split)
    images = [image(row["key"]) for row in rows[:num_samples]]
    with phase("writing the report"):
        write_report(folder, cfg.name, list(zip(rows[:num_samples], images, strict=True)))
    numbers = folder.metrics()
    for logger in trainer.loggers:
        logger.log_metrics(numbers, trainer.global_step)
        logger.log_samples(rows[:num_samples], images)  # type: ignore[attr-defined]
        logger.finish()  # type: ignore[attr-defined]
    print_numbers(folder, next_tasks)
