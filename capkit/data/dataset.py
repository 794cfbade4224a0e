"""Turn a request for a batch (epoch, indices) into a `CaptionBatch`, in a data worker.

A batch is built in one call, so that its images are stacked and normalised together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from capkit.data.collate import Collator, Encode, Example, raw_pixels
from capkit.data.conditions.base import ConditionReader
from capkit.data.features import FeatureStore
from capkit.data.images import BadImage
from capkit.data.jpeg import Decoder, read_picture
from capkit.data.negatives import EditedCaptions
from capkit.data.placement import Placement
from capkit.data.records import Record
from capkit.data.skipped import Skipped
from capkit.data.sources.base import DataSource, Mirrors, picture_file, picture_size
from capkit.data.sub_captions import SubCaptions
from capkit.data.targets import CaptionsOf, Target, placed, targets_of
from capkit.data.transforms import ImageTransform
from capkit.text.prompt_encoder import LongPrompt, PromptEncoder
from capkit.text.sides import says_left_or_right
from capkit.text.word_classes import WordClasses
from capkit.types import CaptionBatch, Viewer
from capkit.utils.rng import stable_hash, uniform

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

    `raw` are its pixels where the loader normalises them on the GPU: they travel as bytes. `removed_regions` of its
    images have a crop that leaves too little of them.
    """

    batch: CaptionBatch | None
    skipped: list[Skipped]
    raw: UInt8[Tensor, "B 3 S S"] | None = None
    removed_regions: int = 0


@dataclass
class _LeftOut:
    """What a batch had to do without."""

    skipped: list[Skipped] = field(default_factory=list)
    removed_regions: int = 0


class CaptionDataset(Dataset[Collated]):
    """Batches of one split of a data source.

    In training, an unusable example is replaced by another, drawn by (seed, epoch, index), so that batches keep their
    size on all ranks; in evaluation it is left out. Training draws `captions_per_image` captions of an image by (seed,
    epoch, index), without repetition if there are enough; evaluation takes the first ones. With `features`, cached
    features replace pixels, and `attribute_features` come beside them. Without `encode`, a batch has no tokens. With
    `negatives`, each chosen caption comes with a wrong one, another in each epoch.

    With `captions_of="regions"`, captions are texts of regions: in training `regions_per_image` of them or, if an image
    has fewer, all; in evaluation all. Where another image of the batch has more, the mask of what is missing is False.
    Regions of which the transform leaves less than `min_visible` of the area are left out and counted. An image that
    is left without any is replaced in training, as the unusable are, but may come again in the next epoch.

    A picture is mirrored only if its record's texts say neither left nor right, or if the source `Mirrors` them too.

    `decode` reads pictures that a source has as files: "turbo" and "pillow" give equal pixels, "scaled" decodes a JPEG
    at the smallest size that the transform needs (capkit/data/jpeg.py). With `is_raw`, pixels are not normalised here
    and lie in `Collated.raw`. `viewers` get further pictures, of the keys that a request names.

    `encode_prompt` gives the token ids of the prompts that captions answer. A caption without one, in a batch where
    others have some, answers BOS alone. Without `encode_prompt` an example with a prompt is unusable, and so is one
    whose prompt is too long. References are those of the picture's captions that answer a prompt of the chosen ones.

    Without `transform` and `features`, examples have no pictures, and the source is asked for none.

    `sub_captions` draw the texts of an image in training, in place of `captions_per_image`.

    `word_classes` give the class of each token's word (`batch.word_classes`), for which `encode` is a CaptionEncoder.

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
        captions_of: CaptionsOf = "images",
        regions_per_image: int = 8,
        min_visible: float = 0.0,
        encode_prompt: PromptEncoder | None = None,
        word_classes: WordClasses | None = None,
        sub_captions: SubCaptions | None = None,
        attribute_features: FeatureStore | None = None,
    ) -> None:
        self.source, self.split = source, split
        self._encode_prompt = encode_prompt
        self._viewers, self._sub_captions = viewers or {}, sub_captions if is_training else None
        self._decode, self._file = decode, None if decode == "pillow" else picture_file(source)
        self._is_raw = is_raw
        self._transform, self._encode = transform, encode
        self._features, self._attribute_features = features, attribute_features
        self._captions_per_image, self._seed = captions_per_image, seed
        self.is_training, self._negatives = is_training, negatives
        self._conditions, self._condition_dropout = conditions or {}, condition_dropout if is_training else 0.0
        self._captions_of, self._regions_per_image, self._min_visible = captions_of, regions_per_image, min_visible
        self._skipped: dict[int, Skipped] = {}
        has_captions = split != "predict"
        self._collator = Collator(
            transform,
            features,
            attribute_features,
            captions_of,
            is_raw,
            conditions=list(self._conditions) if has_captions else [],
            encode=encode if has_captions else None,
            encode_prompt=encode_prompt,
            word_classes=word_classes,
            has_negatives=negatives is not None,
        )

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, request: Request) -> Collated:
        left_out = _LeftOut()
        load = self._replaced if self.is_training else self._load
        examples = [e for index in request.indices if (e := load(request.epoch, index, left_out)) is not None]
        complete = len(examples) == len(request.indices) if self.is_training else len(examples) > 0
        batch = self._collate(examples) if complete else None
        raw = raw_pixels(examples) if batch is not None and self._is_raw else None
        if batch is not None and request.bags is not None:
            # A replacement of an unusable example does not belong to the bag.
            rows = zip(examples, request.indices, request.bags, strict=True)
            batch.bag = torch.tensor([bag if example.index == index else -1 for example, index, bag in rows])
        if batch is not None and request.pictures:
            batch.pictures = {name: self._viewers[name].preprocess(keys) for name, keys in request.pictures.items()}
        return Collated(batch, left_out.skipped, raw, left_out.removed_regions)

    def _replaced(self, epoch: int, index: int, left_out: _LeftOut) -> Example | None:
        """The example, or the first usable replacement drawn by (seed, epoch, index); None after MAX_REPLACEMENTS."""
        example = self._load(epoch, index, left_out)
        draw = np.array([stable_hash(self._seed, "replacement", epoch, index)])
        for attempt in range(MAX_REPLACEMENTS):
            if example is not None:
                break
            example = self._load(epoch, int(uniform(draw, attempt)[0] * len(self)), left_out)
        return example

    def _load(self, epoch: int, index: int, left_out: _LeftOut) -> Example | None:
        if index in self._skipped:
            left_out.skipped.append(self._skipped[index])
            return None
        record = self.source.record(index)
        try:
            example = self._example(epoch, index, record)
        except BadImage as error:
            self._skipped[index] = Skipped(self.split, record.key, record.image, str(error))
            left_out.skipped.append(self._skipped[index])
            return None
        left_out.skipped += [self._part(record, reason) for reason in example.unusable]
        left_out.removed_regions += example.removed_regions
        if not example.chosen and example.removed_regions:
            left_out.skipped.append(self._part(record, "the crop leaves none of its regions"))
            return None
        return example

    def _part(self, record: Record, reason: str) -> Skipped:
        """A skipped caption or region of a record; it does not count against the budget of unusable examples."""
        what = "caption" if self._captions_of == "images" else "region"
        return Skipped(self.split, record.key, record.image, reason, what)

    def _example(self, epoch: int, index: int, record: Record) -> Example:
        targets, reasons = targets_of(record, self._captions_of)
        if not targets and self.split != "predict":
            what = "caption, or only empty ones" if self._captions_of == "images" else "region with an area and a text"
            raise BadImage(f"no {what}")
        key = (self._seed, epoch, index)
        pixels, placement, shown = self._picture(index, record, key)
        if shown is not record:
            targets, _ = targets_of(shown, self._captions_of)
        targets = self._drawn(targets, key)
        seen = targets if placement is None else placed(targets, placement, self._min_visible)
        chosen = self._first(seen) if self._sub_captions is None else self._sub_captions(seen, key)
        negatives = [] if self._negatives is None else self._negatives([target.text for target in chosen], key)
        told = chosen if self._captions_of == "regions" else sorted(targets, key=lambda target: target.number)
        asked = {target.caption.prompt for target in chosen}
        references = [target.text for target in told if not asked or target.caption.prompt in asked]
        return Example(
            index=index,
            record=shown,
            references=references,
            chosen=chosen,
            negatives=negatives,
            pixels=pixels,
            unusable=reasons,
            removed_regions=len(targets) - len(seen),
            conditions=self._values(shown, chosen, key),
            prompts=self._prompts(chosen),
        )

    def _prompts(self, chosen: list[Target]) -> list[list[int]] | None:
        """Token ids of the chosen captions' prompts; None if none has one, or tokens are not wanted."""
        if self._encode is None or all(target.caption.prompt is None for target in chosen):
            return None
        if self._encode_prompt is None:
            raise BadImage(
                "its caption answers a prompt, which this captioner does not read; take model=chat_vlm or clip_prefix, "
                "or model=text_writer where there is no picture"
            )
        try:
            return [self._encode_prompt(target.caption.prompt) for target in chosen]
        except LongPrompt as error:
            raise BadImage(str(error)) from error

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

    def _drawn(self, targets: list[Target], key: tuple[int, int, int]) -> list[Target]:
        """In training the targets in an order drawn by `key`, before any crop: it does not change the others' order."""
        if not self.is_training or len(targets) < 2:
            return targets
        # Sorting hashed draws takes a quarter of the time of seeding a generator per image.
        order = uniform(stable_hash(*key, "captions") + np.arange(len(targets)), 0).argsort().tolist()
        return [targets[place] for place in order]

    def _first(self, targets: list[Target]) -> list[Target]:
        if self._captions_of == "regions":
            return targets[: self._regions_per_image] if self.is_training else targets
        return [targets[k % len(targets)] for k in range(self._captions_per_image)] if targets else []

    def _picture(
        self, index: int, record: Record, key: tuple[int, int, int]
    ) -> tuple[Tensor | None, Placement | None, Record]:
        """The picture as the model sees it, how it is placed, and the record of it: another one of a mirror image.

        With cached features there is no picture, and a placement only where regions need one.
        """
        if self._features is not None:
            for store in (self._features, self._attribute_features):
                if store is not None and record.key not in store:
                    raise BadImage(f"no cached features in {store.folder}")
            return None, self._placement_of_features(index) if self._captions_of == "regions" else None, record
        if self._transform is None:
            return None, None, record
        random_key = key if self.is_training else None
        if self._file is None:
            rgb, scale = self.source.image(index), 1.0
            full_size = (rgb.shape[0], rgb.shape[1])
        else:
            fraction = partial(self._transform.fraction, random_key=random_key) if self._decode == "scaled" else None
            rgb, full_size, scale = read_picture(self._file(index), fraction)
        placement = self._transform.placement(*full_size, random_key)
        if placement.mirrored:
            mirrored = self._mirrored(record)
            placement, record = replace(placement, mirrored=mirrored is not None), mirrored or record
        return self._transform.place(rgb, placement, scale), placement, record

    def _mirrored(self, record: Record) -> Record | None:
        """The record of the mirror image; None if its texts would be wrong."""
        if isinstance(self.source, Mirrors):
            return self.source.mirrored(record)
        texts = [*(caption.text for caption in record.captions), *(region.text for region in record.regions)]
        return None if says_left_or_right(texts) else record

    def _placement_of_features(self, index: int) -> Placement:
        assert self._transform is not None
        if self._transform.keeps_shares:
            return self._transform.placement(1, 1)
        width, height = picture_size(self.source, index)
        return self._transform.placement(height, width)

    def _collate(self, examples: list[Example]) -> CaptionBatch:
        return self._collator(examples)

    def normalize(self, raw: UInt8[Tensor, "B 3 S S"]) -> Tensor:
        """Pixels as the model reads them, of `Collated.raw`."""
        assert self._transform is not None
        return self._transform.normalize(raw)
