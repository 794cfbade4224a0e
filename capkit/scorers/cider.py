"""CIDEr-D as a reward (Rennie et al. 2017; Vedantam et al. 2015): words or token ids, EOS counted as a word.

B images, K samples per image, R references of the image that has most, L tokens.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.errors import UsageError
from capkit.metrics.coco.cider import cider_d_from_ids
from capkit.metrics.coco.cider_torch import IdfTable, cider_d_padded
from capkit.metrics.coco.corpus import ImageSentences
from capkit.metrics.coco.document_frequencies import WORDS, DocumentFrequencies
from capkit.metrics.coco.ngrams import VOCABULARY, Sentences, hash_ids
from capkit.scorers.base import BaseScorer
from capkit.text.ptb import ptb_text
from capkit.text.tokenizers import encode_captions
from capkit.types import CaptionBatch, Samples
from capkit.utils.tensors import send

EOS_WORD = "<end of caption>"  # contains spaces, so it cannot equal a word of a caption
OWN_REFERENCES = "batch"
_MAX_REMEMBERED = 2**20
_NO_LIMIT = 2**20  # tokens of a reference


class CiderD(BaseScorer):
    """CIDEr-D of each sample against its image's references, in 0 .. 10, as float32.

    Args:
        units: "word": PTB words of the texts, without EOS equal to pycocoevalcap. "token": the captioner's ids, scored
            on the samples' device: by numpy on a CPU, by torch in float32 on a GPU, equal to 1e-4.
        append_eos: Count EOS as a word, in references always and in a sample if it has one, so that truncated or
            incomplete samples score less. Samples given as text count as complete.
        document_frequencies: A file or object of the training split; null: `fit` must be called first; "batch": from
            each batch's own references, as pycocoevalcap does, so that scores depend on the batch.
        tokenizer: The captioner's, with units="token"; None: that of `attach_captioner`.
        prompt: The captioner's, with units="token".
    """

    needs_references = True

    def __init__(
        self,
        units: str = "word",
        append_eos: bool = True,
        document_frequencies: DocumentFrequencies | str | os.PathLike[str] | None = None,
        tokenizer: Any = None,
        prompt: str = "",
    ) -> None:
        if units not in ("word", "token"):
            raise UsageError(f"CiderD wants units=word or units=token; got {units!r}")
        self.append_eos, self.needs_tokens = append_eos, units == "token"
        self.needs_fit = document_frequencies is None
        self._remembered: dict[str, Int[np.ndarray, " _"]] = {}
        self._tables: dict[torch.device, IdfTable] = {}
        self._frequencies: DocumentFrequencies | None = None
        self._own_references = document_frequencies == OWN_REFERENCES
        self._given = None if self._own_references else document_frequencies
        self.tokenizer: Any = None
        self.prompt = ""
        if not self.needs_tokens or tokenizer is not None:
            self._set_units(tokenizer if self.needs_tokens else None, prompt)

    @property
    def scores_alone(self) -> bool:
        return not self._own_references

    def attach_captioner(self, tokenizer: Any, prompt: str) -> None:
        """Takes the tokenizer for `units="token"`, unless one was given before."""
        if self.needs_tokens and self.tokenizer is None:
            self._set_units(tokenizer, prompt)

    def _set_units(self, tokenizer: Any, prompt: str) -> None:
        """What n-grams are made of is known now, so that given document frequencies can be held against it."""
        self.tokenizer, self.prompt = tokenizer, prompt
        self.units = _units(tokenizer, self.append_eos)
        if isinstance(self._given, DocumentFrequencies):
            self.document_frequencies = self._given
        elif self._given is not None:
            self.document_frequencies = DocumentFrequencies.load(self._given)

    def _require_tokenizer(self) -> None:
        if self.needs_tokens and self.tokenizer is None:
            raise UsageError(
                "CiderD(units=token) counts the captioner's ids and wants its tokenizer; got none; give tokenizer, or "
                "take units=word"
            )

    @property
    def document_frequencies(self) -> DocumentFrequencies | None:
        return self._frequencies

    @document_frequencies.setter
    def document_frequencies(self, frequencies: DocumentFrequencies) -> None:
        if frequencies.units != self.units:
            raise UsageError(
                f"CiderD counts n-grams of {self.units!r}; got document frequencies of {frequencies.units!r}; build "
                "them with the fit() of a CiderD of the same units, append_eos and tokenizer"
            )
        self._frequencies = frequencies
        self._tables = {}

    def fit(self, references: Sequence[Sequence[str]]) -> DocumentFrequencies:
        """Count document frequencies over the references of the training images; set and return them."""
        self._require_tokenizer()
        sentences = Sentences.from_arrays(self._reference_ids([c for image in references for c in image]))
        hashes = self._hashes(sentences.ids)
        counted = DocumentFrequencies.from_ids(sentences, [len(image) for image in references], hashes, self.units)
        self.document_frequencies = counted
        return counted

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        """Score the samples. Raises UsageError for an image without references, or missing document frequencies."""
        self._require_tokenizer()
        if self._frequencies is None and not self._own_references:
            raise UsageError(
                "CiderD wants document frequencies; got none; call fit(references of the training images), or give "
                f"document_frequencies=FILE, or {OWN_REFERENCES!r} for each batch's own"
            )
        if len(batch.references) != len(batch) or not all(batch.references):
            raise UsageError("CiderD wants at least one reference for every image of the batch; some have none")
        device = samples.tokens.device if samples.tokens is not None else torch.device("cpu")
        if self.tokenizer is not None and device.type != "cpu" and not self._own_references:
            return self._score_on_device(batch, samples)
        candidates = self._word_samples(samples) if self.tokenizer is None else self._token_samples(batch, samples)
        return send(torch.from_numpy(self._score(candidates, batch.references)).float(), device)

    def _score(
        self, candidates: list[list[Int[np.ndarray, " _"]]], references: Sequence[Sequence[str]]
    ) -> Float[np.ndarray, "B K"]:
        flat = iter(self._reference_ids([caption for image in references for caption in image]))
        rows = [[*row, *(next(flat) for _ in image)] for row, image in zip(candidates, references, strict=True)]
        sentences = Sentences.from_arrays([ids for row in rows for ids in row])
        images = ImageSentences(sentences, len(candidates[0]), np.array([len(image) for image in references]))
        if self._frequencies is None:
            return cider_d_from_ids(images)
        return cider_d_from_ids(images, self._frequencies, self._hashes(sentences.ids))

    def _score_on_device(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        tokens, lengths = self._sample_tokens(batch, samples)
        flat = self._reference_ids([caption for image in batch.references for caption in image])
        padded = _pad(flat, [len(image) for image in batch.references])
        references, reference_lengths, num_references = (tensor.to(tokens.device) for tensor in padded)
        if tokens.device not in self._tables:
            assert self._frequencies is not None
            self._tables[tokens.device] = IdfTable.from_frequencies(self._frequencies, tokens.device, torch.float32)
        table = self._tables[tokens.device]
        return cider_d_padded(tokens, lengths, references, reference_lengths, num_references, table)

    def _word_samples(self, samples: Samples) -> list[list[Int[np.ndarray, " _"]]]:
        ended = np.ones((len(samples.texts), len(samples.texts[0])), bool)
        if samples.ended_on_host is not None:
            ended = samples.ended_on_host.numpy()
        return [
            [_word_ids(text, bool(end) and self.append_eos) for text, end in zip(texts, ends, strict=True)]
            for texts, ends in zip(samples.texts, ended, strict=True)
        ]

    def _token_samples(self, batch: CaptionBatch, samples: Samples) -> list[list[Int[np.ndarray, " _"]]]:
        tokens, lengths = (tensor.cpu().numpy() for tensor in self._sample_tokens(batch, samples))
        return [
            [row[:length] for row, length in zip(*image, strict=True)] for image in zip(tokens, lengths, strict=True)
        ]

    def _sample_tokens(self, batch: CaptionBatch, samples: Samples) -> tuple[Int[Tensor, "B K L"], Int[Tensor, "B K"]]:
        """Ids after the prompt, and the number of them that count."""
        if samples.tokens is None or samples.mask is None or samples.ended is None:
            raise UsageError("CiderD(units=token) wants samples with tokens, mask and ended; got texts; use units=word")
        lengths = samples.mask.sum(-1) - batch.prompt_length
        if not self.append_eos:
            lengths = lengths - samples.ended.long()
        return samples.tokens[..., batch.prompt_length :], lengths.clamp(min=0)

    def _reference_ids(self, captions: Sequence[str]) -> list[Int[np.ndarray, " _"]]:
        """Each caption's ids, with EOS if it counts; cached, since references recur every epoch."""
        if len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.clear()
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._remembered]
        encode = self._encode_words if self.tokenizer is None else self._encode_tokens
        self._remembered.update(zip(new, encode(new), strict=True))
        return [self._remembered[caption] for caption in captions]

    def _encode_words(self, captions: list[str]) -> list[Int[np.ndarray, " _"]]:
        return [_word_ids(caption, self.append_eos) for caption in captions]

    def _encode_tokens(self, captions: list[str]) -> list[Int[np.ndarray, " _"]]:
        if not captions:
            return []
        tokens, mask, start = encode_captions(self.tokenizer, [captions], self.prompt, _NO_LIMIT)
        ends = mask[0].sum(-1).numpy() - (not self.append_eos)
        return [row[start:end] for row, end in zip(tokens[0].numpy(), ends, strict=True)]

    def _hashes(self, ids: Int[np.ndarray, " W"]) -> Int[np.ndarray, " W"]:
        return VOCABULARY.hashes()[ids] if self.tokenizer is None else hash_ids(ids)


def _units(tokenizer: Any, append_eos: bool) -> str:
    """Identifier of the n-gram units, since frequencies of another tokenizer's ids would be meaningless."""
    name = WORDS
    if tokenizer is not None:
        vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
        name = f"token of {hashlib.blake2b(vocabulary.encode(), digest_size=8).hexdigest()}"
    return f"{name}+eos" if append_eos else name


def _word_ids(caption: str, append_eos: bool) -> Int[np.ndarray, " _"]:
    """Tokenize a caption on its own, since a score must not depend on the next caption of the batch."""
    words = ptb_text(caption).split()
    if append_eos:
        words.append(EOS_WORD)
    return np.fromiter(map(VOCABULARY.__getitem__, words), np.int64, len(words))


def _pad(
    flat: list[Int[np.ndarray, " _"]], num_references: list[int]
) -> tuple[Int[Tensor, "B R L"], Int[Tensor, "B R"], Int[Tensor, " B"]]:
    """Pad the ragged references of all images to one tensor; also return lengths and numbers of references."""
    counts, sizes = np.array(num_references), np.array([len(ids) for ids in flat])
    image = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
    tokens = np.zeros((len(counts), counts.max(), max(sizes.max(), 1)), np.int64)
    lengths = np.zeros(tokens.shape[:2], np.int64)
    lengths[image, place] = sizes
    tokens[np.arange(tokens.shape[2]) < lengths[..., None]] = np.concatenate(flat)
    return torch.from_numpy(tokens), torch.from_numpy(lengths), torch.from_numpy(counts)
