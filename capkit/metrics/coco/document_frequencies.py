"""Document frequencies: the number of images with each n-gram, the basis of CIDEr's idf; built once and saved."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from capkit.errors import UsageError
from capkit.metrics.coco.corpus import ImageSentences
from capkit.metrics.coco.ngrams import VOCABULARY, NgramCounts, Sentences, starts_of_runs
from capkit.text.checked import checked_references
from capkit.text.normalize import normalize_all
from capkit.utils.files import atomic_path

WORDS = "word"  # units: PTB words without EOS, as pycocoevalcap counts
_FORMAT = "capkit document frequencies 1"


@dataclass(frozen=True)
class DocumentFrequencies:
    """`counts[i]` images have a reference with the n-gram `keys[i]` (ascending, orders 1 .. 4 together).

    `units` names what the n-grams consist of; frequencies of different units must not be mixed.
    """

    keys: Int[np.ndarray, " U"]
    counts: Int[np.ndarray, " U"]
    num_images: int
    units: str = WORDS

    @classmethod
    def from_references(
        cls, references: Sequence[Sequence[str]], *, tokenized: bool = False, language: str = "en"
    ) -> "DocumentFrequencies":
        """Count words over the references of each image: in English PTB words. Raises UsageError if there are none."""
        references = checked_references(references)
        flat = [caption for captions in references for caption in captions]
        lines = flat if tokenized else normalize_all(flat, language)
        sentences = Sentences.from_texts(lines)
        hashes = VOCABULARY.hashes()[sentences.ids]
        return cls.from_ids(sentences, [len(captions) for captions in references], hashes, WORDS)

    @classmethod
    def from_ids(
        cls, references: Sentences, num_references: Sequence[int], hashes: Int[np.ndarray, " W"], units: str
    ) -> "DocumentFrequencies":
        """Count references given as ids; `hashes` of all their words identify n-grams across processes."""
        if not len(references):
            raise UsageError("document frequencies need the references of at least one image; got none")
        images = ImageSentences(references, 0, np.array(num_references))
        keys = np.concatenate([ngrams.keys(hashes) for ngrams in images.ngrams])
        counts = np.concatenate([images_with_gram(images, ngrams) for ngrams in images.ngrams])
        order = np.argsort(keys)
        return cls(keys[order], counts[order], len(num_references), units)

    def idf(self, keys: Int[np.ndarray, " G"]) -> Float[np.ndarray, " G"]:
        """log(images / images with the n-gram); unseen n-grams count as if seen in one image."""
        counts = np.ones(len(keys), np.int64)
        begins, shift = self._buckets
        bucket = (keys >> shift) + len(begins) // 2
        wanted, place, end = np.arange(len(keys)), begins[bucket], begins[bucket + 1]
        while len(wanted):
            within = np.flatnonzero(place < end)
            wanted, place, end = wanted[within], place[within], end[within]
            hit = self.keys[place] == keys[wanted]
            counts[wanted[hit]] = self.counts[place[hit]]
            wanted, place, end = wanted[~hit], place[~hit] + 1, end[~hit]
        return np.log(float(self.num_images)) - np.log(counts)

    @cached_property
    def _buckets(self) -> tuple[Int[np.ndarray, " _"], int]:
        """Start of the keys with each value of the leading bits, and the shift that extracts those bits.

        Keys are hashes, hence about one per bucket; bisection in a table of millions takes ten times longer.
        """
        bits = max(len(self.keys).bit_length(), 1)
        leading = (self.keys >> (64 - bits)) + (1 << (bits - 1))
        return np.searchsorted(leading, np.arange((1 << bits) + 1)), 64 - bits

    def content_hash(self) -> str:
        """Hash of the content: equal for equal counts, whoever built them."""
        digest = hashlib.blake2b(f"{self.units}\n{self.num_images}\n".encode(), digest_size=16)
        for array in (self.keys, self.counts):
            digest.update(array.astype("<i8").tobytes())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        metadata = {
            "format": _FORMAT,
            "units": self.units,
            "num_images": str(self.num_images),
            "content_hash": self.content_hash(),
        }
        with atomic_path(path) as temporary:
            save_file({"keys": self.keys, "counts": self.counts}, temporary, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "DocumentFrequencies":
        """Read a saved file. Raises UsageError if it is missing, of another kind, or damaged."""
        name = os.fspath(path)
        if not Path(path).is_file():
            raise UsageError(f"document frequencies: no file {name!r}; write one with DocumentFrequencies.save")
        try:
            with safe_open(name, framework="numpy") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        except SafetensorError as error:
            raise UsageError(f"{name!r} holds no document frequencies ({error}); build it again") from error
        if metadata.get("format") != _FORMAT:
            raise UsageError(f"{name!r} holds no document frequencies; write them with DocumentFrequencies.save")
        loaded = cls(**tensors, num_images=int(metadata["num_images"]), units=metadata["units"])
        if loaded.content_hash() != metadata["content_hash"]:
            raise UsageError(f"{name!r} was changed after it was written (its hash differs); build it again")
        return loaded


def images_with_gram(images: ImageSentences, counts: NgramCounts) -> Int[np.ndarray, " U"]:
    """Number of images that have each n-gram in any reference."""
    in_reference = images.is_reference[counts.sentence]
    gram, image = counts.gram[in_reference], images.image[counts.sentence[in_reference]]
    once = starts_of_runs(gram) | starts_of_runs(image)
    return np.bincount(gram[once], minlength=len(counts.word))
