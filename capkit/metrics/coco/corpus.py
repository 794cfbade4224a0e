"""Input of the COCO metrics: each image's candidates and references, laid out so that one sort serves all metrics.

B images, K candidates per image, S sentences: for each image first its candidates, then its references.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice, pairwise

import numpy as np
from jaxtyping import Bool, Int

from capkit.errors import UsageError
from capkit.metrics.coco.ngrams import NgramCounts, Sentences, count_ngrams
from capkit.text.checked import checked_references, checked_texts
from capkit.text.normalize import normalize_all


@dataclass(frozen=True)
class ImageSentences:
    """Sentences as ids, by image: K candidates, then the image's references."""

    sentences: Sentences
    num_candidates: int
    num_references: Int[np.ndarray, " B"]

    @cached_property
    def image(self) -> Int[np.ndarray, " S"]:
        return np.repeat(np.arange(len(self.num_references)), self.num_candidates + self.num_references)

    @cached_property
    def place(self) -> Int[np.ndarray, " S"]:
        """Position within the image: candidates are 0 .. K - 1, references follow."""
        sizes = self.num_candidates + self.num_references
        return np.arange(len(self.image)) - np.repeat(np.cumsum(sizes) - sizes, sizes)

    @cached_property
    def is_reference(self) -> Bool[np.ndarray, " S"]:
        return self.place >= self.num_candidates

    @cached_property
    def first_reference(self) -> Int[np.ndarray, " B"]:
        """Index of each image's first reference among all references."""
        return np.cumsum(self.num_references) - self.num_references

    @cached_property
    def ngrams(self) -> list[NgramCounts]:
        """Counts for n = 1 .. 4, cached, since BLEU and CIDEr of one corpus share them."""
        return list(count_ngrams(self.sentences))


@dataclass(frozen=True)
class Corpus:
    """Tokenized texts of a corpus with one prediction per image: [prediction, *references] by image."""

    texts: list[str]
    num_references: Int[np.ndarray, " B"]

    @classmethod
    def from_texts(
        cls,
        predictions: Sequence[str],
        references: Sequence[Sequence[str]],
        *,
        tokenized: bool = False,
        language: str = "en",
    ) -> "Corpus":
        """Tokenize the texts, English as the COCO tools do, unless they are already words joined by spaces.

        As in the COCO tools, all predictions are one text to the tokenizer, and all references another: how a line ends
        can depend on the next line. Raises UsageError if there is nothing to score, for other shapes (dicts as in
        pycocoevalcap, a text in place of a list), if an image has no reference, or if the two differ in number.
        """
        predictions, references = _checked(predictions, references)
        captions = [caption for image in references for caption in image]
        if not tokenized:
            predictions, captions = normalize_all(predictions, language), normalize_all(captions, language)
        remaining = iter(captions)
        texts = [
            text
            for prediction, image in zip(predictions, references, strict=True)
            for text in (prediction, *islice(remaining, len(image)))
        ]
        return cls(texts, np.array([len(image) for image in references]))

    @property
    def rows(self) -> list[list[str]]:
        """[prediction, *references] of each image."""
        ends = list(accumulate((self.num_references + 1).tolist(), initial=0))
        return [self.texts[a:b] for a, b in pairwise(ends)]

    @cached_property
    def by_whitespace(self) -> ImageSentences:
        """Words are separated by any whitespace, as BLEU and CIDEr count them."""
        return ImageSentences(Sentences.from_texts(self.texts), 1, self.num_references)

    @cached_property
    def by_single_spaces(self) -> ImageSentences:
        """Words are separated by single spaces, as in ROUGE: an empty text is one empty word."""
        joined = " ".join(self.texts)
        one_between = joined.count(" ") + 1 == len(self.by_whitespace.sentences.ids)
        if one_between and (joined.isprintable() or " ".join(joined.split()) == joined):  # printable: no tabs etc.
            return self.by_whitespace
        words = [text.split(" ") for text in self.texts]
        return ImageSentences(Sentences.from_words(words), 1, self.num_references)


def _checked(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    captions, targets = checked_texts(predictions, "predictions"), checked_references(references)
    if not captions:
        raise UsageError("predictions: expected at least one, got none; give one caption per image")
    if len(captions) != len(targets):
        raise UsageError(
            f"references: expected one list of references per prediction, got {len(captions)} predictions and "
            f"{len(targets)} lists of references; give those of the same images, in the same order"
        )
    for index, group in enumerate(targets):
        if not group:
            raise UsageError(f"references[{index}]: expected at least one text, got none; leave that image out")
    return captions, targets
