"""Captions of a split or of a loader, on every rank."""

import lightning.pytorch as pl

from capkit.console import phase
from capkit.data.datamodule import CaptionDataModule
from capkit.data.loader import CaptionLoader
from capkit.evaluation import Row, gather_rows
from capkit.module import WritingModule


def caption_loader(trainer: pl.Trainer, module: WritingModule, loader: CaptionLoader) -> list[Row]:
    """One row per image of the loader (key, caption, references, metadata), from all ranks, ordered by key."""
    batches = trainer.predict(module, dataloaders=loader)
    return gather_rows([row for batch in batches or [] for row in batch])


def caption_split(
    trainer: pl.Trainer, module: WritingModule, data: CaptionDataModule, split: str, limit: int | None = None
) -> list[Row]:
    """The first `limit` images of a split, or all of them."""
    data.prepare_data()
    data.setup(split)
    loader = data.eval_dataloader(split, limit)
    num_images = data.num_images(split) if limit is None else min(limit, data.num_images(split))
    with phase(f"captioning {split}", num_images):
        return caption_loader(trainer, module, loader)
