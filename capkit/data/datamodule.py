"""`CaptionDataModule` builds loaders from data sources. Its constructor is the schema of configs/data/*.yaml."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning.pytorch as pl

from capkit.data.collate import Encode
from capkit.data.combinations import check_combination, check_sources
from capkit.data.conditions.base import OfOneCorpus
from capkit.data.conditions.readers import condition_readers
from capkit.data.curricula.base import Curriculum, Grouped
from capkit.data.curricula.shuffle import Shuffle, check_batch_size
from capkit.data.curricula.single_epoch import Steps
from capkit.data.dataset import CaptionDataset
from capkit.data.features import FeatureStore
from capkit.data.fingerprint import fingerprint
from capkit.data.jpeg import Decoder
from capkit.data.loader import Batches, CaptionLoader, InOrder
from capkit.data.negatives import EditedCaptions
from capkit.data.skipped import SkipLog
from capkit.data.sources.above_score import above_score
from capkit.data.sources.base import DataSource
from capkit.data.sources.in_languages import InLanguages
from capkit.data.split_records import Splits
from capkit.data.sub_captions import SubCaptions
from capkit.data.targets import CaptionsOf
from capkit.data.transforms import ImageTransform
from capkit.distributed import collectives as distributed
from capkit.errors import UsageError
from capkit.text.prompt_encoder import PromptEncoder
from capkit.text.word_classes import WordClasses
from capkit.types import Viewer
from capkit.utils.files import write_json
from capkit.utils.ranges import (
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    Probability,
    Range,
    Seed,
    WorkerCount,
    check_ranges,
)


@check_ranges
class CaptionDataModule(Splits, pl.LightningDataModule):
    """Loaders of train, val, test and predict batches.

    A task calls `attach` before the loaders are built. A loop that runs one long epoch calls `set_steps` with its
    position. With Lightning's own epochs, the loop calls `consumed` after each batch, and checkpoints store the
    curriculum's state. A curriculum of bags writes `curriculum.json` to the run folder: the hash of its bags, and what
    it leaves out.

    Args:
        train: Source of training examples; likewise `val`, `test` and `predict`.
        transform: Turns images into pixels; may be null with `features`, and is with `pictures=false`.
        batch_size: Images per optimizer step over all processes.
        eval_batch_size: Images per evaluation batch of one process.
        captions_per_image: Captions of an image in a batch, which share its encoding.
        max_length: Maximum number of tokens of a caption, prompt and EOS included.
        num_workers: Worker processes per loader; 0 loads in the main process.
        max_skipped: Budget of unusable examples per split: a share (float) or a count (int).
        features: Folder of cached features that replace pixels.
        attribute_features: Folder of further features of the same regions, for the attribute module of model=modular.
        seed: Of curriculum, augmentation and choice of captions.
        curriculum: Forms the training batches; null: Shuffle.
        negatives: Adds a wrong caption for each caption of train and val.
        captions_of: "images", or "regions": then texts of regions are learned, and evaluation has a row for each
            region.
        regions_per_image: Most regions of an image in a training batch, which share its encoding; evaluation takes all.
        min_visible: Share of a region's area that the transform must leave; else the region is left out, and counted.
        decode: How picture files are read. "turbo": JPEG by libjpeg-turbo itself, all else by Pillow; "pillow": all
            by Pillow, with the same pixels. "scaled": as turbo, but a JPEG is decoded at 1/8, 1/4 or 1/2 of its size
            where the transform needs no more: faster, pixels differ (docs/data.md).
        conditions: What captions are written under, by name, such as {length: length} (docs/conditions.md); null: none.
        condition_dropout: Share of their values that a training step does not see.
        languages: BCP 47 tags, such as pt-BR: of train, val and test only captions in these languages, and only images
            that have one; null: all captions.
        min_score: Train on captions with this score or more (`capkit align`), and on no others; null: on all.
        pictures: Whether examples have pictures; false: texts alone, for model=text_writer.
        max_prompt_tokens: Most tokens of the prompt that a caption answers, its chat template's included; null: what
            the model has beside `max_length`.
        long_prompts: What becomes of an example with a longer prompt. "skip": it is left out and counted, like other
            unusable ones; "cut": its prompt loses its end.
        word_classes: Give each token the class of its word, for objective=modular; null: none.
        sub_captions: Texts of an image in a training batch, in place of `captions_per_image`: {count: 8, always: raw,
            from: [short, long]} takes the caption by "raw" whole and 7 sentences of those whose source begins with
            "short" or "long" (capkit/data/sub_captions.py); null: captions as they are.
    """

    def __init__(
        self,
        train: DataSource | None = None,
        val: DataSource | None = None,
        test: DataSource | None = None,
        predict: DataSource | None = None,
        transform: ImageTransform | None = None,
        batch_size: PositiveInt = 64,
        eval_batch_size: PositiveInt = 64,
        captions_per_image: PositiveInt = 1,
        max_length: Annotated[int, Range(3)] = 32,  # room for BOS, a word and EOS
        num_workers: WorkerCount = 0,
        max_skipped: Probability | NonNegativeInt = 0.05,
        features: str | None = None,
        seed: Seed = 0,
        curriculum: Callable[..., Curriculum] | None = None,
        negatives: EditedCaptions | None = None,
        captions_of: Literal["images", "regions"] = "images",
        regions_per_image: PositiveInt = 8,
        min_visible: Probability = 0.5,
        decode: Literal["turbo", "scaled", "pillow"] = "turbo",
        conditions: Mapping[str, Any] | None = None,
        condition_dropout: Probability = 0.0,
        languages: Sequence[str] | None = None,
        min_score: FiniteFloat | None = None,
        pictures: bool = True,
        max_prompt_tokens: PositiveInt | None = None,
        long_prompts: Literal["skip", "cut"] = "skip",
        word_classes: WordClasses | None = None,
        sub_captions: Mapping[str, Any] | None = None,
        attribute_features: str | None = None,
    ) -> None:
        super().__init__()
        check_combination(
            transform,
            features,
            attribute_features,
            pictures,
            captions_of,
            captions_per_image,
            sub_captions is not None,
            word_classes is not None,
        )
        self._corpus = train
        if train is not None and min_score is not None:
            train = above_score(train, min_score)
        self.sources: dict[str, DataSource | None] = {"train": train, "val": val, "test": test, "predict": predict}
        check_sources(self.sources)
        if languages is not None:
            for split in ("train", "val", "test"):
                if (source := self.sources[split]) is not None:
                    self.sources[split] = InLanguages(source, languages, split)
        self.transform, self.features = transform, FeatureStore(features) if features is not None else None
        self.attribute_features = None if attribute_features is None else FeatureStore(attribute_features)
        if self.attribute_features is not None and self.features is not None:
            self.attribute_features.check_same_regions(self.features)
        self.pictures, self.max_prompt_tokens, self.long_prompts = pictures, max_prompt_tokens, long_prompts
        self.word_classes = word_classes
        self.sub_captions = None if sub_captions is None else SubCaptions.of(sub_captions)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.captions_per_image, self.max_length = captions_per_image, max_length
        self.num_workers, self.max_skipped, self.seed = num_workers, max_skipped, seed
        self.captions_of: CaptionsOf = captions_of
        self.regions_per_image, self.min_visible = regions_per_image, min_visible
        self.decode: Decoder = decode
        self.conditions, self._condition_dropout = condition_readers(conditions or {}), condition_dropout
        self._make_curriculum, self._negatives = curriculum or Shuffle, negatives
        self.curriculum: Curriculum | None = None
        self._viewers: dict[str, Viewer] = {}
        self._keys: dict[str, list[str]] = {}
        self._steps: tuple[int, int] | None = None
        self._pending: dict[str, Any] | None = None
        self.attach()

    def attach(
        self,
        encode: Encode | None = None,
        run_dir: str | Path | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        encode_prompt: PromptEncoder | None = None,
    ) -> None:
        """Set what the task knows and the config does not.

        `encode` tokenizes captions of B images, K each, to (tokens (B K L), mask (B K L), prompt_length). `run_dir` is
        where skipped.jsonl is written. Rank and world size default to those of the process group. `encode_prompt` is
        for captioners whose captions answer prompts.
        """
        self._encode, self._rank, self._world_size = encode, rank, world_size
        self._encode_prompt = encode_prompt
        self._run_dir = None if run_dir is None else Path(run_dir)
        self._log = SkipLog(Path(run_dir) / "skipped.jsonl" if run_dir is not None else None)
        check_batch_size(self.batch_size, self.world_size)

    @property
    def rank(self) -> int:
        return distributed.rank() if self._rank is None else self._rank

    @property
    def world_size(self) -> int:
        return distributed.world_size() if self._world_size is None else self._world_size

    @property
    def trains_on_gpu(self) -> bool:
        """Whether a Lightning trainer is about to move the training batches to a GPU."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def removed_regions(self, split: str) -> int:
        """How many regions this process left out so far because the transform left less than `min_visible` of them."""
        return self._log.removed_regions[split]

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of the first epoch; with some curricula later epochs differ."""
        return self.num_steps(1)

    def num_steps(self, epochs: float | int) -> int:
        """Optimizer steps of the first `epochs` epochs."""
        return self._plan.num_steps(epochs)

    @cached_property
    def _plan(self) -> Curriculum:
        """A curriculum used only to query the lengths of epochs, which do not depend on ranks."""
        return self._new_curriculum()

    def set_steps(self, start: int, total: int) -> None:
        """Make the next `train_dataloader` yield the batches of steps `start` to `total`, across epochs."""
        if not 0 <= start <= total:
            raise UsageError(f"steps must satisfy 0 <= start <= total; got start={start}, total={total}")
        self._steps = (start, total)

    def _loader(self, split: str, batches: Batches, is_training: bool = False) -> CaptionLoader:
        negatives = self._negatives if split in ("train", "val") else None
        if negatives is not None:
            negatives.fit(self.captions("train"))
        dataset = CaptionDataset(
            self.source(split),
            split,
            self.transform,
            self.features,
            self._encode,
            self.captions_per_image,
            self.seed,
            is_training,
            negatives,
            self.decode,
            is_raw=is_training and self.trains_on_gpu,
            viewers=self._viewers,
            conditions=self.conditions,
            condition_dropout=self._condition_dropout,
            captions_of=self.captions_of,
            regions_per_image=self.regions_per_image,
            min_visible=self.min_visible,
            encode_prompt=self._encode_prompt,
            word_classes=self.word_classes,
            sub_captions=self.sub_captions,
            attribute_features=self.attribute_features,
        )
        bag_ids = self.curriculum.bag_ids if is_training and isinstance(self.curriculum, Grouped) else None
        unseen = self._unseen if is_training and self._viewers else None
        return CaptionLoader(dataset, batches, self._log, self.max_skipped, self.num_workers, bag_ids, unseen)

    def show_to(self, viewers: Mapping[str, Viewer]) -> None:
        """Let viewers see training pictures, read by the workers of the next `train_dataloader`."""
        self._viewers = dict(viewers)

    def _unseen(self, indices: list[int]) -> dict[str, list[str]]:
        """Keys of the training pictures that viewers want of these examples, by the viewer's name."""
        keys = [self.keys("train")[index] for index in indices]
        wanted = {name: viewer.unseen(keys) for name, viewer in self._viewers.items()}
        return {name: unseen for name, unseen in wanted.items() if unseen}

    def _new_curriculum(self) -> Curriculum:
        extra: dict[str, Any] = {}
        wanted = inspect.signature(self._make_curriculum).parameters
        if "keys" in wanted:
            extra["keys"] = lambda: self.keys("train")
        if "objects" in wanted:
            source = self.source("train")
            extra["objects"] = lambda: [source.record(index).object for index in range(len(source))]
        return self._make_curriculum(
            batch_size=self.batch_size,
            seed=self.seed,
            rank=self.rank,
            world_size=self.world_size,
            num_examples=self.num_examples,
            **extra,
        )

    def train_dataloader(self) -> CaptionLoader:
        self._check_conditions()
        self.curriculum = self._new_curriculum()
        _ = self.fingerprint  # computed now, while the records are as training starts with them
        if self._pending is not None:
            self.curriculum.load_state_dict(self._pending)
            self._pending = None
        if self.rank == 0 and self._run_dir is not None and isinstance(self.curriculum, Grouped):
            write_json(self._run_dir / "curriculum.json", self.curriculum.describe())
        batches = self.curriculum if self._steps is None else Steps(self.curriculum, *self._steps)
        return self._loader("train", batches, is_training=True)

    def eval_dataloader(self, split: str, limit: int | None = None) -> CaptionLoader:
        """The first `limit` images of a split, or all: in order, without augmentation, each on exactly one rank."""
        num_images = self.num_images(split) if limit is None else min(limit, self.num_images(split))
        return self._loader(split, InOrder(num_images, self.eval_batch_size, self.rank, self.world_size))

    def _check_conditions(self) -> None:
        for reader in self.conditions.values():
            if isinstance(reader, OfOneCorpus) and self._corpus is not None:
                reader.check(self._corpus)

    def val_dataloader(self) -> CaptionLoader:
        return self.eval_dataloader("val")

    def test_dataloader(self) -> CaptionLoader:
        return self.eval_dataloader("test")

    def predict_dataloader(self) -> CaptionLoader:
        return self.eval_dataloader("predict")

    def consumed(self, num_batches: int = 1) -> None:
        """Advance the position in the data that checkpoints store; called by the training loop after each batch."""
        if self.curriculum is not None:
            self.curriculum.consumed(num_batches)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Number and hash of the training records."""
        return {"records": self.num_images("train"), "hash": fingerprint(self.source("train"))}

    def state_dict(self) -> dict[str, Any]:
        curriculum = None if self.curriculum is None else self.curriculum.state_dict()
        return {"curriculum": curriculum, "data": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Move the curriculum to the saved position, once `train_dataloader` has built it.

        Raises UsageError if the training records changed since the position was saved.
        """
        saved = state_dict.get("data")  # absent in checkpoints of earlier versions
        if saved is not None and saved != self.fingerprint:
            raise UsageError(
                f"the training data changed since the checkpoint was saved: expected the same keys and captions, "
                f"{saved['records']:,} records, got others, {self.fingerprint['records']:,} records; restore the "
                "old data to resume, or set another run_dir (with init_from=RUN to start from this run's weights)"
            )
        if self.curriculum is None:
            self._pending = state_dict["curriculum"]
        elif state_dict["curriculum"] is not None:
            self.curriculum.load_state_dict(state_dict["curriculum"])
