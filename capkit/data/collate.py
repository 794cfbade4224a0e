"""Examples to a batch: pixels or features stacked, texts tokenized, rows padded where images have fewer captions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from capkit.data.features import FeatureStore
from capkit.data.negatives import without_unchanged
from capkit.data.records import Record
from capkit.data.targets import CaptionsOf, Target
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.text.prompt_encoder import PromptEncoder, stack_prompts
from capkit.text.tokenizers import CaptionEncoder
from capkit.text.word_classes import WordClasses
from capkit.types import CaptionBatch
from capkit.utils.rng import stable_hash

Encode = Callable[[list[list[str]]], tuple[Tensor, Tensor, int]]


@dataclass(frozen=True)
class Example:
    """What a batch is made of: a record's picture and the texts that were chosen of it."""

    index: int
    record: Record
    references: list[str]
    chosen: list[Target]
    negatives: list[str]
    pixels: Tensor | None
    unusable: list[str] = field(default_factory=list)  # why captions or regions of the record are no targets
    removed_regions: int = 0
    conditions: dict[str, Tensor] = field(default_factory=dict)  # of the chosen captions (K *value)
    prompts: list[list[int]] | None = None  # token ids of the chosen captions' prompts; None if none has one


@dataclass(frozen=True)
class Collator:
    """Makes a batch of the examples of one split; the fields are as in `CaptionDataset`, `conditions` their names.

    Without `encode` a batch has no tokens. With `is_raw` its pixels are not normalised, and stay out of it.
    """

    transform: ImageTransform | None
    features: FeatureStore | None
    attribute_features: FeatureStore | None
    captions_of: CaptionsOf
    is_raw: bool
    conditions: Sequence[str]
    encode: Encode | None
    encode_prompt: PromptEncoder | None
    word_classes: WordClasses | None
    has_negatives: bool

    def __call__(self, examples: list[Example]) -> CaptionBatch:
        records = [example.record for example in examples]
        batch = CaptionBatch(
            keys=[record.key for record in records],
            references=[example.references for example in examples],
            metadata=[_metadata(record) for record in records],
        )
        if self.captions_of == "regions":
            batch.regions = [[_region(target) for target in example.chosen] for example in examples]
        if self.features is not None:
            features, mask = self.features.padded(batch.keys)
            batch.features = torch.from_numpy(features)
            batch.features_mask = None if mask is None else torch.from_numpy(mask)
            if self.attribute_features is not None:
                batch.attribute_features = torch.from_numpy(self.attribute_features.padded(batch.keys)[0])
        elif self.transform is not None and not self.is_raw:
            raw = raw_pixels(examples)
            batch.pixels = None if raw is None else self.transform.normalize(raw)
        batch.bag = _numbers([record.bag for record in records])
        batch.objects = _numbers([record.object for record in records])
        batch.scores = _scores(examples)
        batch.conditions = {name: _stacked(name, examples) for name in self.conditions}
        if self.encode is not None:
            self._add_tokens(batch, examples)
        return batch

    def _add_tokens(self, batch: CaptionBatch, examples: list[Example]) -> None:
        assert self.encode is not None
        batch.tokens, batch.mask, batch.prompt_length = self._tokens([[t.text for t in e.chosen] for e in examples])
        if self.word_classes is not None:
            batch.word_classes = self._classes(batch.tokens.shape[-1], examples)
        if self.encode_prompt is not None and any(example.prompts is not None for example in examples):
            encode = self.encode_prompt
            prompts = [example.prompts or [encode(None)] * len(example.chosen) for example in examples]
            batch.prompts, batch.prompts_mask = stack_prompts(prompts, encode.tokenizer.pad_token_id)
        if self.has_negatives:
            batch.negative_tokens, mask, _ = self._tokens([example.negatives for example in examples])
            batch.negative_mask = without_unchanged(batch.negative_tokens, mask, batch.tokens, batch.mask)

    def _classes(self, length: int, examples: list[Example]) -> Tensor:
        assert self.word_classes is not None
        if not isinstance(self.encode, CaptionEncoder):
            raise UsageError(
                f"data.word_classes expected a captioner's tokens, got those of {type(self.encode).__name__}; leave "
                "data.word_classes out"
            )
        captions = [[(t.text, t.caption.tags, t.caption.language) for t in example.chosen] for example in examples]
        return self.word_classes.of_tokens(self.encode, captions, length)

    def _tokens(self, texts: list[list[str]]) -> tuple[Tensor, Tensor, int]:
        """Tokens, mask and the length of the prompt, of as many captions an image as the image with the most has.

        Those that are missing are empty, and their mask is False.
        """
        assert self.encode is not None
        most = max(map(len, texts))
        padded = [row + [""] * (most - len(row)) for row in texts]
        tokens, mask, prompt_length = self.encode(padded)
        if not all(map(all, padded)):
            mask = mask & torch.tensor([[bool(text) for text in row] for row in padded])[..., None]
        return tokens, mask, prompt_length


def raw_pixels(examples: list[Example]) -> UInt8[Tensor, "B 3 S S"] | None:
    """The examples' pixels before they are normalised; None if they have none."""
    # Stacked as they lie in memory, channels last: a copy with channels first takes five times as long.
    pixels = [e.pixels.permute(1, 2, 0) for e in examples if e.pixels is not None]
    return torch.stack(pixels).permute(0, 3, 1, 2) if pixels else None


def _scores(examples: list[Example]) -> Float[Tensor, "B K"] | None:
    scores = [[math.nan if t.caption.score is None else t.caption.score for t in e.chosen] for e in examples]
    if all(math.isnan(score) for own in scores for score in own):
        return None
    return pad_sequence([torch.tensor(own) for own in scores], batch_first=True, padding_value=math.nan)


def _stacked(name: str, examples: list[Example]) -> Tensor:
    """A condition's values (B K *value), NaN where an image has fewer captions than another."""
    return pad_sequence([e.conditions[name] for e in examples], batch_first=True, padding_value=math.nan)


def _numbers(names: list[str | None]) -> Int[Tensor, " B"] | None:
    """Equal numbers for equal names, in every process, and -1 for none; None if there is no name."""
    if all(name is None for name in names):
        return None
    return torch.tensor([-1 if name is None else stable_hash(name) for name in names])


def _metadata(record: Record) -> dict[str, Any]:
    """The record's metadata plus the names of its bag and its object, if any, which metrics read there."""
    names = {"bag": record.bag, "object": record.object}
    return record.metadata | {key: name for key, name in names.items() if name is not None}


def _region(target: Target) -> dict[str, Any]:
    """Of a region: its number in the record, its box in the picture, and its text."""
    assert target.region is not None
    return {"number": target.number, "box": list(target.region.box), "text": target.text}
