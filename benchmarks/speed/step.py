"""Section step: a whole step of reinforcement learning, from pictures to new weights, against a loop over transformers.

Self-critical: sampled captions and a greedy one of each picture, CLIPScore (ViT-B/32) and CIDEr-D, one update. Self-
retrieval: one sampled caption of each picture for a ClipCap, and the log-softmax over the batch's pictures. Everything
that turns tokens into texts, texts into tokens and words into scores is in it. Random weights write common words.

The other side is what a user would write (`plain_step.py`). Both know the judge's embeddings of pictures.
"""

import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback

from benchmarks.speed import vocabulary
from benchmarks.speed.data import picture
from benchmarks.speed.measure import Side, in_turn
from benchmarks.speed.plain_step import plain_loop
from benchmarks.speed.rollout import FULL, TINY, Size
from benchmarks.speed.step_setting import ROWS, Judge, Row, module_of, pictures_of
from capkit.data.datamodule import CaptionDataModule
from capkit.data.jpeg import read_picture
from capkit.data.records import Caption, Record
from capkit.data.transforms import ImageTransform
from capkit.train.callbacks.guard import SkipBadSteps
from capkit.train.callbacks.recorder import Recorder
from capkit.train.rl.module import RLModule
from capkit.types import CaptionBatch

NUM_NEW = 64  # batches of new pictures that a run may take


class Within(Callback):
    """Calls `measure` with one step as a function, once training has begun; then training ends."""

    def __init__(self, batch: CaptionBatch, measure: Callable[[Callable[[], Any]], None]) -> None:
        self.batch, self.measure = batch, measure

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        others = [callback for callback in trainer.callbacks if callback is not self]  # type: ignore[attr-defined]

        def step(batch: CaptionBatch = self.batch) -> Any:
            outputs: Any = trainer.strategy.training_step(batch, 0)
            for callback in others:
                callback.on_train_batch_end(trainer, pl_module, outputs, batch, 0)

        self.measure(step)
        trainer.should_stop = True


def in_training(
    module: pl.LightningModule, batch: CaptionBatch, device: str, measure: Callable[[Callable[[], Any]], None]
) -> None:
    """Calls `measure` with one of capkit's steps, as Lightning runs it in mixed precision."""
    trainer = pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu", devices=1, precision="bf16-mixed", max_steps=10**6,
        callbacks=[SkipBadSteps(), Recorder(), Within(batch, measure)], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, [batch])


class Jpegs:
    """As many records as there are steps to take, of few files: each key is a picture that nobody has seen."""

    def __init__(self, folder: Path, references: list[list[str]], tiny: bool) -> None:
        self.references, self.paths, self.prefix = references, [], "new"
        for number in range(len(references)):
            self.paths.append(folder / f"{number}.jpg")
            self.paths[-1].write_bytes(picture(number, *((48, 64) if tiny else (480, 640))))

    def __len__(self) -> int:
        return NUM_NEW * len(self.paths)

    def record(self, index: int) -> Record:
        captions = self.references[index % len(self.paths)]
        return Record(f"{self.prefix}-{index}", None, [Caption(text) for text in captions])

    def image(self, index: int) -> np.ndarray:
        return read_picture(self.paths[index % len(self.paths)].read_bytes()).rgb


def new_batches(
    source: Jpegs, module: RLModule, size: Size, device: str, with_viewers: bool
) -> Generator[CaptionBatch, None, None]:
    """Batches of pictures that the reward has not seen, with `with_viewers` read for it by the loader's workers."""
    workers = min(16, len(os.sched_getaffinity(0))) if device == "cuda" else 0
    transform = ImageTransform(size.image)
    data = CaptionDataModule(source, transform=transform, batch_size=len(source.paths), num_workers=workers)
    if with_viewers:
        data.show_to(module.reward.viewers())
    for batch in data.train_dataloader():
        yield batch.to(device, non_blocking=True)


def measure_new(row: Row, size: Size, judge: Judge, tiny: bool, device: str, rounds: int) -> list[Side]:
    """Steps with pictures that were seen, with new ones that come with the batch, and with new ones that do not."""
    module, seen = module_of(row, size, judge, device)
    found: list[Side] = []
    with tempfile.TemporaryDirectory() as folder:
        references = vocabulary.references_of(size.vocabulary, row.images)
        sources = [Jpegs(Path(folder), references, tiny) for _ in range(2)]
        sources[1].prefix = "other"
        module.reward.prepare(partial(_read, sources, pictures_of(row, size)), lambda: references, device)
        with (
            closing(new_batches(sources[0], module, size, device, with_viewers=True)) as coming,
            closing(new_batches(sources[1], module, size, device, with_viewers=False)) as late,
        ):

            def compare(step: Callable[..., Any]) -> None:
                sides = {
                    "capkit": step,
                    "capkit, new pictures": lambda: step(next(coming)),
                    "capkit, new pictures read in the step": lambda: step(next(late)),
                }
                found.extend(in_turn(sides, rounds, device))

            in_training(module, seen, device, compare)
    return found


def _read(sources: list[Jpegs], seen: dict[str, np.ndarray], key: str) -> np.ndarray | None:
    if key in seen:
        return seen[key]
    prefix, _, index = key.partition("-")
    return next(source for source in sources if source.prefix == prefix).image(int(index))


def rows(tiny: bool) -> list[Row]:
    return [replace(row, images=3, length=4) for row in ROWS] if tiny else ROWS


def measure(row: Row, tiny: bool, device: str, rounds: int, with_static: bool) -> list[Side]:
    size = TINY if tiny else FULL
    judge = Judge.of(size, device)
    if row.new_pictures:
        return measure_new(row, size, judge, tiny, device, rounds)
    module, batch = module_of(row, size, judge, device)
    found: list[Side] = []

    def compare(step: Callable[[], Any]) -> None:
        loop = plain_loop(row, size, judge, device)
        found.extend(in_turn({"capkit": step, "transformers": loop}, rounds, device))

    in_training(module, batch, device, compare)
    return found
