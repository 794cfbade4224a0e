"""Turn a request for a batch (epoch, indices) into a `CaptionBatch`, in a data worker.

A batch is built in one call, so that its images are stacked and normalised together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from capkit.data.conditions.base import ConditionReader
from capkit.data.features import FeatureStore
from capkit.data.images import BadImage
from capkit.data.jpeg import Decoder, read_picture
from capkit.data.negatives import EditedCaptions, without_unchanged
from capkit.data.records import Record
from capkit.data.skipped import Skipped
from capkit.data.sources.base import DataSource, picture_file
from capkit.data.targets import Target, caption_targets
from capkit.data.transforms import ImageTransform
from capkit.text.caption_text import clean_text
from capkit.types import CaptionBatch, Viewer
from capkit.utils.rng import stable_hash, uniform

Encode = Callable[[list[list[str]]], tuple[Tensor, Tensor, int]]
MAX_REPLACEMENTS = 1000


class Request(NamedTuple):
    """A loader's request to a worker. Carries the epoch, since persistent workers do not see attributes change.

    `bags` are the examples' bags if the curriculum forms batches of bags; they override the records' bags. `pictures`
    are the keys of those that viewers want, by their name.
    """

    epoch: int
    indices: list[int]
    bags: list[int] | None = None
    pictures: dict[str, list[str]] | None = None


class Collated(NamedTuple):
    """A batch, or None if no example was usable, and the examples skipped while building it.

    `raw` are its pixels where the loader normalises them on the GPU: they travel as bytes.
    """

    batch: CaptionBatch | None
    skipped: list[Skipped]
    raw: UInt8[Tensor, "B 3 S S"] | None = None


@dataclass(frozen=True)
class _Example:
    record: Record
    captions: list[str]
    chosen: list[str]
    negatives: list[str]
    pixels: Tensor | None
    conditions: dict[str, Tensor] = field(default_factory=dict)  # of the chosen captions (K *value)


class CaptionDataset(Dataset[Collated]):
    """Batches of one split of a data source.

    In training, an unusable example is replaced by another, drawn by (seed, epoch, index), so that batches keep their
    size on all ranks; in evaluation it is left out. Training draws `captions_per_image` captions of an image by (seed,
    epoch, index), without repetition if there are enough; evaluation takes the first ones. With `features`, cached
    features replace pixels. Without `encode`, a batch has no tokens. With `negatives`, each chosen caption comes with a
    wrong one, another in each epoch.

    `decode` reads pictures that a source has as files: "turbo" and "pillow" give equal pixels, "scaled" decodes a JPEG
    at the smallest size that the transform needs (capkit/data/jpeg.py). With `is_raw`, pixels are not normalised here
    and lie in `Collated.raw`. `viewers` get further pictures, of the keys that a request names.

    `conditions` read the values of the chosen captions, by name. In training each value is dropped with probability
    `condition_dropout`, drawn by (seed, epoch, index, name, caption).
    """

    def __init__(
        self,
        source: DataSource,
        split: str,
        transform: ImageTransform | None,
        features: FeatureStore | None,
        encode: Encode | None,
        captions_per_image: int,
        seed: int,
        is_training: bool,
        negatives: EditedCaptions | None = None,
        decode: Decoder = "turbo",
        is_raw: bool = False,
        viewers: Mapping[str, Viewer] | None = None,
        conditions: Mapping[str, ConditionReader] | None = None,
        condition_dropout: float | int = 0.0,
    ) -> None:
        self.source, self.split = source, split
        self._viewers = viewers or {}
        self._decode, self._file = decode, None if decode == "pillow" else picture_file(source)
        self._is_raw = is_raw
        self._transform, self._features, self._encode = transform, features, encode
        self._captions_per_image, self._seed = captions_per_image, seed
        self.is_training, self._negatives = is_training, negatives
        self._conditions, self._condition_dropout = conditions or {}, condition_dropout if is_training else 0.0
        self._skipped: dict[int, Skipped] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, request: Request) -> Collated:
        skipped: list[Skipped] = []
        load = self._replaced if self.is_training else self._load
        examples = [e for index in request.indices if (e := load(request.epoch, index, skipped)) is not None]
        complete = len(examples) == len(request.indices) if self.is_training else len(examples) > 0
        batch = self._collate(examples) if complete else None
        raw = self._raw_pixels(examples) if batch is not None and self._is_raw else None
        if batch is not None and request.bags is not None:
            pairs = zip(request.indices, request.bags, strict=True)
            # A replacement of an unusable example does not belong to the bag.
            batch.bag = torch.tensor([-1 if index in self._skipped else bag for index, bag in pairs])
        if batch is not None and request.pictures:
            batch.pictures = {name: self._viewers[name].preprocess(keys) for name, keys in request.pictures.items()}
        return Collated(batch, skipped, raw)

    def _replaced(self, epoch: int, index: int, skipped: list[Skipped]) -> _Example | None:
        """The example, or the first usable replacement drawn by (seed, epoch, index); None after MAX_REPLACEMENTS."""
        example = self._load(epoch, index, skipped)
        draw = np.array([stable_hash(self._seed, "replacement", epoch, index)])
        for attempt in range(MAX_REPLACEMENTS):
            if example is not None:
                break
            example = self._load(epoch, int(uniform(draw, attempt)[0] * len(self)), skipped)
        return example

    def _load(self, epoch: int, index: int, skipped: list[Skipped]) -> _Example | None:
        if index in self._skipped:
            skipped.append(self._skipped[index])
            return None
        record = self.source.record(index)
        try:
            example = self._example(epoch, index, record)
        except BadImage as error:
            self._skipped[index] = Skipped(self.split, record.key, record.image, str(error))
            skipped.append(self._skipped[index])
            return None
        if len(example.captions) < len(record.captions):
            skipped += self._empty_captions(record)
        return example

    def _example(self, epoch: int, index: int, record: Record) -> _Example:
        targets = caption_targets(record)
        if not targets and self.split != "predict":
            raise BadImage("no caption, or only empty ones")
        key = (self._seed, epoch, index)
        chosen = self._choose(targets, key)
        captions, texts = ([target.text for target in some] for some in (targets, chosen))
        negatives = [] if self._negatives is None else self._negatives(texts, key)
        values = self._values(record, chosen, key)
        return _Example(record, captions, texts, negatives, self._pixels(index, record, key), values)

    def _values(self, record: Record, chosen: list[Target], key: tuple[int, int, int]) -> dict[str, Tensor]:
        """The chosen captions' values of each condition (K *value), NaN where there is none or it is dropped."""
        found = {}
        for name, reader in self._conditions.items():
            values = [reader(record, target) for target in chosen]
            nothing = np.full(reader.value_shape, np.nan)
            rows = np.array([nothing if value is None else value for value in values], dtype=np.float32)
            draws = uniform(stable_hash(*key, "condition", name) + np.arange(len(rows)), 0)
            rows[draws < self._condition_dropout] = np.nan
            found[name] = torch.from_numpy(rows)
        return found

    def _empty_captions(self, record: Record) -> list[Skipped]:
        return [
            Skipped(self.split, record.key, record.image, f"caption {place} is empty", what="caption")
            for place, caption in enumerate(record.captions)
            if not clean_text(caption.text)
        ]

    def _choose(self, targets: list[Target], key: tuple[int, int, int]) -> list[Target]:
        if not targets:
            return []
        order: Sequence[int] = range(len(targets))
        if self.is_training and len(targets) > 1:
            # Sorting hashed draws takes a quarter of the time of seeding a generator per image.
            order = uniform(stable_hash(*key, "captions") + np.arange(len(targets)), 0).argsort().tolist()
        return [targets[order[k % len(targets)]] for k in range(self._captions_per_image)]

    def _pixels(self, index: int, record: Record, key: tuple[int, int, int]) -> Tensor | None:
        if self._features is not None:
            if record.key not in self._features:
                raise BadImage(f"no cached features in {self._features.folder}")
            return None
        assert self._transform is not None
        random_key = key if self.is_training else None
        if self._file is None:
            return self._transform(self.source.image(index), random_key)
        fraction = partial(self._transform.fraction, random_key=random_key) if self._decode == "scaled" else None
        picture = read_picture(self._file(index), fraction)
        return self._transform(picture.rgb, random_key, picture.full_size, picture.scale)

    def _raw_pixels(self, examples: list[_Example]) -> UInt8[Tensor, "B 3 S S"] | None:
        # Stacked as they lie in memory, channels last: a copy with channels first takes five times as long.
        pixels = [e.pixels.permute(1, 2, 0) for e in examples if e.pixels is not None]
        return torch.stack(pixels).permute(0, 3, 1, 2) if pixels else None

    def normalize(self, raw: UInt8[Tensor, "B 3 S S"]) -> Tensor:
        """Pixels as the model reads them, of `Collated.raw`."""
        assert self._transform is not None
        return self._transform.normalize(raw)

    def _collate(self, examples: list[_Example]) -> CaptionBatch:
        records = [example.record for example in examples]
        batch = CaptionBatch(
            keys=[record.key for record in records],
            references=[example.captions for example in examples],
            metadata=[_metadata(record) for record in records],
        )
        if self._features is not None:
            batch.features = torch.from_numpy(self._features[batch.keys])
        elif self._transform is not None and not self._is_raw:
            raw = self._raw_pixels(examples)
            batch.pixels = None if raw is None else self._transform.normalize(raw)
        if any(record.bag is not None for record in records):
            batch.bag = torch.tensor([-1 if record.bag is None else stable_hash(record.bag) for record in records])
        if self.split != "predict":
            batch.conditions = {
                name: torch.stack([example.conditions[name] for example in examples]) for name in self._conditions
            }
        if self._encode is not None and self.split != "predict":
            self._add_tokens(batch, examples)
        return batch

    def _add_tokens(self, batch: CaptionBatch, examples: list[_Example]) -> None:
        assert self._encode is not None
        batch.tokens, batch.mask, batch.prompt_length = self._encode([example.chosen for example in examples])
        if self._negatives is not None:
            batch.negative_tokens, mask, _ = self._encode([example.negatives for example in examples])
            batch.negative_mask = without_unchanged(batch.negative_tokens, mask, batch.tokens, batch.mask)


def _metadata(record: Record) -> dict[str, Any]:
    """The record's metadata plus the name of its bag, if any, which metrics read there."""
    return record.metadata if record.bag is None else {**record.metadata, "bag": record.bag}
