"""Preferences as training data: the pictures of a data source, each pair's two captions in their order."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from capkit.data.about_pictures import AboutPictures, OfFiles, refuse_shared
from capkit.data.collate import Example
from capkit.data.dataset import CaptionDataset
from capkit.data.item_data import ItemDataModule
from capkit.data.loader import Batches, CaptionLoader
from capkit.data.preference_files import Preference
from capkit.data.records import Caption, Record
from capkit.data.sources.base import DataSource, picture_file, prepare_source
from capkit.data.targets import Target
from capkit.errors import UsageError
from capkit.text.tokenizers import CaptionEncoder, decode_captions, prompt_ids
from capkit.types import CaptionBatch

PAIR = "preference"  # in metadata: the pair's number, criterion, scores and token ids


class PreferencePairs(AboutPictures[Preference]):
    """One record a pair: its picture in `source`, with the captions chosen, rejected.

    Its metadata are the picture's, and under "preference" the pair's number and what else is known of it.
    """

    def as_record(self, record: Record, number: int, item: Preference) -> Record:
        own = {"number": number, "criterion": item.criterion, "scores": item.scores, "tokens": item.tokens}
        captions = [
            Caption(text, source="preference", prompt=item.prompt or None) for text in (item.chosen, item.rejected)
        ]
        return replace(record, captions=captions, regions=[], metadata={**record.metadata, PAIR: own})


class PreferencePairsOfFiles(PreferencePairs, OfFiles[Preference]):
    """The same of a source whose pictures are files."""


def preference_pairs(source: DataSource, pairs: Sequence[Preference], what: str = "pairs") -> PreferencePairs:
    of_files = picture_file(source) is not None
    return PreferencePairsOfFiles(source, pairs, what) if of_files else PreferencePairs(source, pairs, what)


class PreferenceDataset(CaptionDataset):
    """Pairs of one split: of each picture `tokens` has two rows, the chosen caption's and the rejected one's.

    Token ids that were kept with a pair are taken as they are. The reference is the chosen caption.
    """

    def _drawn(self, targets: list[Target], key: tuple[int, int, int]) -> list[Target]:
        return targets

    def _example(self, epoch: int, index: int, record: Record) -> Example:
        example = super()._example(epoch, index, record)
        return replace(example, references=example.references[:1])

    def _collate(self, examples: list[Example]) -> CaptionBatch:
        batch = super()._collate(examples)
        kept = [example.record.metadata[PAIR]["tokens"] for example in examples]
        if batch.tokens is None or batch.mask is None or not any(kept):
            return batch
        start = batch.tokens[0, 0, : batch.prompt_length].tolist()
        texts = [
            [row[real].tolist() for row, real in zip(*both, strict=True)]
            for both in zip(batch.tokens, batch.mask, strict=True)
        ]
        rows = [
            both if ids is None else [[*start, *side] for side in ids] for both, ids in zip(texts, kept, strict=True)
        ]
        length = max(len(row) for both in rows for row in both)
        batch.tokens = batch.tokens.new_zeros(len(rows), 2, length)
        batch.mask = torch.zeros(batch.tokens.shape, dtype=torch.bool)
        for place, both in enumerate(rows):
            for side, row in enumerate(both):
                batch.tokens[place, side, : len(row)] = torch.tensor(row)
                batch.mask[place, side, : len(row)] = True
        return batch


class PreferenceDataModule(ItemDataModule):
    """As CaptionDataModule, with pairs of captions in train and val; the pictures are those of `train`.

    The task gives the pairs by `take`, before loaders are built. The test split stays as it is.
    """

    def take(self, train: Sequence[Preference], val: Sequence[Preference]) -> None:
        """Raises UsageError for pairs of pictures that `train` does not have."""
        source = self.source("train")
        prepare_source(source)
        learned, held = preference_pairs(source, train), preference_pairs(source, val, "val pairs")
        refuse_shared(learned, held, source, "pair")
        self.sources["train"], self.sources["val"] = learned, held
        self._keys.clear()

    def check_pairs(self, encode: CaptionEncoder) -> None:
        """Raises UsageError for pairs whose sides are one after `max_length`, or whose token ids are no text's."""
        for split in ("train", "val"):
            source = self.source(split)
            for index in range(len(source)):
                record = source.record(index)
                where = f"{split} pair {index + 1} (of {record.key!r})"
                texts, kept = [caption.text for caption in record.captions], record.metadata[PAIR]["tokens"]
                if kept is not None:
                    _check_ids(kept, texts, encode, where)
                    continue
                tokens, mask, _ = encode([texts])
                if torch.equal(tokens[0, 0] * mask[0, 0], tokens[0, 1] * mask[0, 1]):
                    raise UsageError(
                        f"{where}: expected captions that differ within data.max_length={encode.max_length} tokens, "
                        f"got {texts[0][:60]!r} on both sides; raise data.max_length, or leave the pair out"
                    )

    def _loader(self, split: str, batches: Batches, is_training: bool = False) -> CaptionLoader:
        if split not in ("train", "val"):
            return super()._loader(split, batches, is_training)
        dataset = PreferenceDataset(
            self.source(split), split, self.transform, self.features, self._encode, 2, self.seed, is_training,
            decode=self.decode, is_raw=is_training and self.trains_on_gpu, encode_prompt=self._encode_prompt,
            attribute_features=self.attribute_features,
        )  # fmt: skip
        return CaptionLoader(dataset, batches, self._log, self.max_skipped, self.num_workers)


def _check_ids(kept: Any, texts: Sequence[str], encode: CaptionEncoder, where: str) -> None:
    start = prompt_ids(encode.tokenizer, encode.prompt)
    if (longest := len(start) + max(map(len, kept))) > encode.max_length:
        raise UsageError(
            f"{where}: expected token ids of at most data.max_length={encode.max_length} with those in front, got "
            f"{longest}; give data.max_length={longest} or more, or collect with decoding.max_length="
            f"{encode.max_length - len(start)}"
        )
    for ids, text in zip(kept, texts, strict=True):
        if max(ids) >= len(encode.tokenizer):
            written = None
        else:
            tokens = torch.tensor([[[*start, *ids]]])
            ((written,),) = decode_captions(
                encode.tokenizer, tokens, torch.ones_like(tokens, dtype=torch.bool), len(start)
            )
        if written != text.strip():
            got = "another vocabulary" if written is None else repr(written)
            raise UsageError(
                f"{where}: expected token ids of {text[:60]!r} by this captioner's tokenizer, got those of {got}; take "
                "the captioner that wrote them, or leave 'tokens' out of the file"
            )


def criteria(pairs: Sequence[Preference]) -> dict[str, int]:
    """Pairs by criterion."""
    return dict(Counter(pair.criterion or "(none)" for pair in pairs).most_common())
