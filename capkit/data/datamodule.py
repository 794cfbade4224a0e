"""`CaptionDataModule`: data sources to loaders. Its constructor is the schema of configs/data/*.yaml."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from capkit import distributed
from capkit.curricula.curriculum import Curriculum
from capkit.curricula.shuffle import Shuffle, check_batch_size
from capkit.data.dataset import CaptionDataset, Encode
from capkit.data.features import FeatureStore
from capkit.data.loader import Batches, CaptionLoader, InOrder
from capkit.data.skipped import SkipLog, check_max_skipped
from capkit.data.source import DataSource, Preparable, clean_captions
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError

SPLITS = ("train", "val", "test", "predict")


class CaptionDataModule(pl.LightningDataModule):
    """Loaders of train, val, test and predict batches.

    `batch_size` counts the images of one optimizer step over all processes; `eval_batch_size` those of one process.
    An epoch is every training image once, with `captions_per_image` of its captions sharing one encoding of it.
    `max_length` is the most tokens of a caption, prompt and EOS included; the task builds `encode` with it.
    `max_skipped` is the budget of examples that cannot be used, per split: a share (float) or a count (int).
    `features` is the folder of a FeatureStore that takes the place of pixels.

    A task calls `attach` before the loaders are made.
    """

    def __init__(
        self,
        train: DataSource | None = None,
        val: DataSource | None = None,
        test: DataSource | None = None,
        predict: DataSource | None = None,
        transform: ImageTransform | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 64,
        captions_per_image: int = 1,
        max_length: int = 32,
        num_workers: int = 0,
        max_skipped: float | int = 0.05,
        features: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        counts = {
            "batch_size": batch_size,
            "eval_batch_size": eval_batch_size,
            "captions_per_image": captions_per_image,
        }
        for name, count in counts.items():
            if count < 1:
                raise UsageError(f"{name} must be 1 or more; got {count}")
        if max_length < 3:
            raise UsageError(f"max_length must leave room for BOS, a word and EOS: 3 or more tokens; got {max_length}")
        if num_workers < 0:
            raise UsageError(f"num_workers must be 0 or more; got {num_workers}")
        check_max_skipped(max_skipped)
        if transform is None and features is None:
            raise UsageError("data needs transform (pixels) or features=DIR (cached features); neither is given")
        if features is not None and transform is not None and transform.augment is not None:
            raise UsageError(
                "cached features cannot be augmented; set data.transform.augment=null or data.features=null"
            )
        self.sources: dict[str, DataSource | None] = {"train": train, "val": val, "test": test, "predict": predict}
        self.transform, self.features = transform, FeatureStore(features) if features is not None else None
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.captions_per_image, self.max_length = captions_per_image, max_length
        self.num_workers, self.max_skipped, self.seed = num_workers, max_skipped, seed
        self.curriculum: Curriculum | None = None
        self._pending: dict[str, Any] | None = None
        self.attach()

    def attach(
        self,
        encode: Encode | None = None,
        run_dir: str | Path | None = None,
        curriculum: Callable[..., Curriculum] = Shuffle,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        """What the task knows and the config does not.

        `encode` turns the captions of B images, K each, into (tokens (B K L), mask (B K L), prompt_length);
        skipped.jsonl is written to `run_dir`. Rank and world size are those of the process group unless given.
        """
        self._encode, self._curriculum_class = encode, curriculum
        self._rank, self._world_size = rank, world_size
        self._log = SkipLog(Path(run_dir) / "skipped.jsonl" if run_dir is not None else None)
        check_batch_size(self.batch_size, self._share()[1])

    def _share(self) -> tuple[int, int]:
        return (
            distributed.rank() if self._rank is None else self._rank,
            distributed.world_size() if self._world_size is None else self._world_size,
        )

    def source(self, split: str) -> DataSource:
        source = self.sources[split]
        if source is None:
            raise UsageError(f"the data config has no {split} source; add data.{split} (docs/data.md shows sources)")
        return source

    def num_images(self, split: str) -> int:
        return len(self.source(split))

    def captions(self, split: str) -> Iterator[str]:
        """Every caption of a split, cleaned, without reading an image: for vocabularies and document frequencies."""
        source = self.source(split)
        for index in range(len(source)):
            yield from clean_captions(source.record(index).captions)

    def prepare_data(self) -> None:
        """Builds what sources cache; Lightning calls it on one process of a node before the others go on."""
        for source in self.sources.values():
            if isinstance(source, Preparable):
                source.prepare()

    def _loader(self, split: str, batches: Batches) -> CaptionLoader:
        dataset = CaptionDataset(
            self.source(split), split, self.transform, self.features, self._encode, self.captions_per_image, self.seed
        )
        return CaptionLoader(dataset, batches, self._log, self.max_skipped, self.num_workers)

    def train_dataloader(self) -> CaptionLoader:
        rank, world_size = self._share()
        self.curriculum = self._curriculum_class(
            batch_size=self.batch_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            num_examples=self.num_images("train"),
        )
        if self._pending is not None:
            self.curriculum.load_state_dict(self._pending)
            self._pending = None
        return self._loader("train", self.curriculum)

    def _in_order(self, split: str) -> CaptionLoader:
        rank, world_size = self._share()
        return self._loader(split, InOrder(self.num_images(split), self.eval_batch_size, rank, world_size))

    def val_dataloader(self) -> CaptionLoader:
        return self._in_order("val")

    def test_dataloader(self) -> CaptionLoader:
        return self._in_order("test")

    def predict_dataloader(self) -> CaptionLoader:
        return self._in_order("predict")

    def consumed(self, num_batches: int = 1) -> None:
        """The training loop calls this after each batch: a checkpoint then knows the exact place in the data."""
        if self.curriculum is not None:
            self.curriculum.consumed(num_batches)

    def state_dict(self) -> dict[str, Any]:
        return {"curriculum": None if self.curriculum is None else self.curriculum.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Moves the curriculum to that place, or the one that `train_dataloader` will make."""
        if self.curriculum is None:
            self._pending = state_dict["curriculum"]
        elif state_dict["curriculum"] is not None:
            self.curriculum.load_state_dict(state_dict["curriculum"])
