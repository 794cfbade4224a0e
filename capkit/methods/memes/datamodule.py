"""Memes to batches: all candidate captions of each, at their places, and the label."""

import torch

from capkit.data.collate import Example
from capkit.data.datamodule import CaptionDataModule
from capkit.data.dataset import CaptionDataset
from capkit.data.loader import Batches, CaptionLoader
from capkit.data.records import Record
from capkit.data.targets import Target
from capkit.text.caption_text import clean_text
from capkit.types import CaptionBatch


class MemeDataset(CaptionDataset):
    """One split of memes as batches.

    `references` and `tokens` hold every candidate at its place: candidate k of a meme is row k of its tokens. Where a
    caption is empty, or a meme has fewer than others, the row's mask is all False. `conditions["label"]` is 1.0 for a
    hateful meme.
    """

    def _example(self, epoch: int, index: int, record: Record) -> Example:
        pixels, _, record = self._picture(index, record, (self._seed, epoch, index))
        candidates = [Target(clean_text(c.text), c, number) for number, c in enumerate(record.captions)]
        return Example(index, record, [candidate.text for candidate in candidates], candidates, [], pixels)

    def _collate(self, examples: list[Example]) -> CaptionBatch:
        batch = super()._collate(examples)
        batch.conditions["label"] = torch.tensor([float(example.record.metadata["label"]) for example in examples])
        return batch


class MemeDataModule(CaptionDataModule):
    """As CaptionDataModule, with every candidate caption of a meme in place of `captions_per_image` drawn ones."""

    def _loader(self, split: str, batches: Batches, is_training: bool = False) -> CaptionLoader:
        dataset = MemeDataset(
            self.source(split),
            split,
            self.transform,
            self.features,
            self._encode,
            1,
            self.seed,
            is_training,
            decode=self.decode,
            is_raw=is_training and self.trains_on_gpu,
        )
        return CaptionLoader(dataset, batches, self._log, self.max_skipped, self.num_workers)
