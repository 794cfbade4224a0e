"""BLEU-1 .. BLEU-4 as the COCO tools compute it (Papineni et al. 2002; closest reference length, counts smoothed).

B images, N images or 1 corpus, R resamples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

from capkit.metrics.bootstrap import ImageSums
from capkit.metrics.coco.corpus import Corpus, ImageSentences
from capkit.metrics.coco.ngrams import MAX_ORDER, NgramCounts, starts_of_runs
from capkit.metrics.text_metric import TextMetric
from capkit.text.normalize import primary_language

_SMALL, _TINY = 1e-9, 1e-15  # pycocoevalcap's smoothing: an image without any match scores about 0, never 0 / 0


def bleu(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, tokenized: bool = False, language: str = "en"
) -> list[float]:
    """BLEU-1, -2, -3, -4 of the corpus, in 0 .. 1.

    `tokenized=True`: the texts are already words joined by spaces; else they are tokenized for `language`.
    """
    return bleu_of(Corpus.from_texts(predictions, references, tokenized=tokenized, language=language))[0]


def bleu_scores(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, tokenized: bool = False, language: str = "en"
) -> Float[np.ndarray, "B 4"]:
    """BLEU-1, -2, -3, -4 of each image. The corpus's BLEU is not their mean."""
    return bleu_of(Corpus.from_texts(predictions, references, tokenized=tokenized, language=language))[1]


def bleu_of(corpus: Corpus) -> tuple[list[float], Float[np.ndarray, "B 4"]]:
    """BLEU of the corpus and of each image."""
    statistics = _statistics(corpus.by_whitespace)
    return _formula(*(x.sum(0, keepdims=True) for x in statistics))[0].tolist(), _formula(*statistics)


class Bleu(TextMetric):
    """bleu_1 .. bleu_4 of all predictions of all ranks, in 0 .. 1, from n-gram counts summed over the corpus.

    `bleu_scores`, which the scorer of this name returns, computes each image's number from its own counts.
    `tokenized`: the texts are already words.
    """

    resamples_cheaply = True

    def __init__(self, tokenized: bool = False, language: str = "en") -> None:
        super().__init__()
        primary_language(language)
        self.tokenized, self.language = tokenized, language

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        values = bleu(predictions, references, tokenized=self.tokenized, language=self.language)
        return {f"bleu_{order}": value for order, value in enumerate(values, 1)}

    def image_sums(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> ImageSums:
        corpus = Corpus.from_texts(predictions, references, tokenized=self.tokenized, language=self.language)
        correct, guessed, length, nearest = _statistics(corpus.by_whitespace)

        def numbers(sums: Float[np.ndarray, "R 10"]) -> dict[str, Float[np.ndarray, " R"]]:
            values = _formula(sums[:, :4], sums[:, 4:8], sums[:, 8], sums[:, 9])
            return {f"bleu_{order}": column for order, column in enumerate(values.T, 1)}

        return ImageSums(np.column_stack([correct, guessed, length, nearest]).astype(np.float64), numbers)


def _statistics(
    images: ImageSentences,
) -> tuple[Int[np.ndarray, "B 4"], Int[np.ndarray, "B 4"], Int[np.ndarray, " B"], Int[np.ndarray, " B"]]:
    """Per image: matched n-grams, n-grams, words, and words of the reference closest in length."""
    lengths = images.sentences.lengths
    length, reference_lengths = lengths[~images.is_reference], lengths[images.is_reference]
    correct = np.stack([_clipped_matches(images, counts) for counts in images.ngrams], axis=1)
    guessed = np.maximum(length[:, None] - np.arange(MAX_ORDER), 0)
    distance = np.abs(reference_lengths - np.repeat(length, images.num_references))
    base = int(reference_lengths.max()) + 1  # in a tie the shorter reference counts
    nearest = np.minimum.reduceat(distance * base + reference_lengths, images.first_reference) % base
    return correct, guessed, length, nearest


def _clipped_matches(images: ImageSentences, counts: NgramCounts) -> Int[np.ndarray, " B"]:
    """Per image: n-grams of the prediction found in a reference, each clipped to its maximum count in a reference."""
    num_images = len(images.num_references)
    image, is_reference = images.image[counts.sentence], images.is_reference[counts.sentence]
    first = np.flatnonzero(starts_of_runs(counts.gram) | starts_of_runs(image))  # of each (gram, image)
    if not len(first):
        return np.zeros(num_images, np.int64)
    in_references = np.maximum.reduceat(np.where(is_reference, counts.count, 0), first)
    in_prediction = np.where(is_reference[first], 0, counts.count[first])  # the prediction comes before its references
    matched = np.minimum(in_prediction, in_references)
    return np.bincount(image[first], matched, num_images).astype(np.int64)


def _formula(
    correct: Num[np.ndarray, "N 4"],
    guessed: Num[np.ndarray, "N 4"],
    length: Num[np.ndarray, " N"],
    reference_length: Num[np.ndarray, " N"],
) -> Float[np.ndarray, "N 4"]:
    precision = (correct + _TINY) / (guessed + _SMALL)
    mean = np.cumprod(precision, axis=1) ** (1 / np.arange(1, MAX_ORDER + 1))
    ratio = (length + _TINY) / (reference_length + _SMALL)
    return mean * np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)[:, None]
