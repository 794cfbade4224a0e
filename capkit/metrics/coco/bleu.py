"""BLEU-1 .. BLEU-4 as the COCO tools compute it (Papineni et al. 2002; closest reference length, counts smoothed).

B images, N images or 1 corpus, R resamples.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Num

from capkit.metrics.coco.corpus import Corpus, ImageSentences
from capkit.metrics.coco.ngrams import MAX_ORDER, NgramCounts, starts_of_runs
from capkit.utils.renamed import moved_names

__getattr__ = moved_names(__name__)  # Bleu is in `collected`

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
    statistics = bleu_statistics(corpus.by_whitespace)
    return bleu_formula(*(x.sum(0, keepdims=True) for x in statistics))[0].tolist(), bleu_formula(*statistics)


def bleu_statistics(
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


def bleu_formula(
    correct: Num[np.ndarray, "N 4"],
    guessed: Num[np.ndarray, "N 4"],
    length: Num[np.ndarray, " N"],
    reference_length: Num[np.ndarray, " N"],
) -> Float[np.ndarray, "N 4"]:
    precision = (correct + _TINY) / (guessed + _SMALL)
    mean = np.cumprod(precision, axis=1) ** (1 / np.arange(1, MAX_ORDER + 1))
    ratio = (length + _TINY) / (reference_length + _SMALL)
    return mean * np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)[:, None]
