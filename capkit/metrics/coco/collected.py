"""The COCO metrics as objects that collect captions from all ranks. What they compute is in a file each, free of torch.

N images, R resamples.
"""

import os
from typing import Any

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError
from capkit.metrics.bootstrap import ImageSums, image_means
from capkit.metrics.coco.bleu import bleu, bleu_formula, bleu_statistics
from capkit.metrics.coco.cider import cider_scores_of
from capkit.metrics.coco.corpus import Corpus
from capkit.metrics.coco.document_frequencies import DocumentFrequencies
from capkit.metrics.coco.meteor import check_language, meteor, require_meteor
from capkit.metrics.coco.rouge import rouge_l, rouge_l_scores
from capkit.metrics.coco.spice import require_spice, spice, spice_scores
from capkit.metrics.text_metric import TextMetric
from capkit.text.normalize import primary_language


class _OfWords(TextMetric):
    """Scores words of texts in any `language`; `tokenized`: the texts are words already."""

    resamples_cheaply = True

    def __init__(self, tokenized: bool = False, language: str = "en") -> None:
        super().__init__()
        primary_language(language)
        self.tokenized, self.language = tokenized, language

    def _corpus(self, predictions: list[str], references: list[list[str]]) -> Corpus:
        return Corpus.from_texts(predictions, references, tokenized=self.tokenized, language=self.language)


class Bleu(_OfWords):
    """bleu_1 .. bleu_4 of all predictions of all ranks, in 0 .. 1, from n-gram counts summed over the corpus.

    `bleu_scores`, which the scorer of this name returns, computes each image's number from its own counts.
    `tokenized`: the texts are already words.
    """

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        values = bleu(predictions, references, tokenized=self.tokenized, language=self.language)
        return {f"bleu_{order}": value for order, value in enumerate(values, 1)}

    def image_sums(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> ImageSums:
        correct, guessed, length, nearest = bleu_statistics(self._corpus(predictions, references).by_whitespace)

        def numbers(sums: Float[np.ndarray, "R 10"]) -> dict[str, Float[np.ndarray, " R"]]:
            values = bleu_formula(sums[:, :4], sums[:, 4:8], sums[:, 8], sums[:, 9])
            return {f"bleu_{order}": column for order, column in enumerate(values.T, 1)}

        return ImageSums(np.column_stack([correct, guessed, length, nearest]).astype(np.float64), numbers)


class RougeL(_OfWords):
    """rouge_l of all predictions of all ranks, in 0 .. 1. `tokenized`: the texts are words already."""

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        return {"rouge_l": rouge_l(predictions, references, tokenized=self.tokenized, language=self.language)}

    def image_sums(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> ImageSums:
        scores = rouge_l_scores(predictions, references, tokenized=self.tokenized, language=self.language)
        return image_means({"rouge_l": scores})


class Cider(_OfWords):
    """cider of all predictions of all ranks, in 0 .. 10. `tokenized`: the texts are already words.

    `document_frequencies` is a file saved by `DocumentFrequencies`; without it the references are the corpus.
    """

    def __init__(
        self,
        tokenized: bool = False,
        language: str = "en",
        document_frequencies: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(tokenized, language)
        self.document_frequencies = (
            None if document_frequencies is None else DocumentFrequencies.load(document_frequencies)
        )

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        return {"cider": float(self._scores(predictions, references).mean())}

    def image_sums(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> ImageSums:
        """Document frequencies are those of all images in every resample."""
        return image_means({"cider": self._scores(predictions, references)})

    def _scores(self, predictions: list[str], references: list[list[str]]) -> Float[np.ndarray, " N"]:
        return cider_scores_of(self._corpus(predictions, references), self.document_frequencies)


class Meteor(TextMetric):
    """meteor of all predictions of all ranks, in 0 .. 1. `tokenized`: the texts are already words."""

    def __init__(self, tokenized: bool = False, language: str = "en") -> None:
        super().__init__()
        check_language(language)
        require_meteor()
        self.tokenized, self.language = tokenized, language

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        return {"meteor": meteor(predictions, references, tokenized=self.tokenized, language=self.language)}


class Spice(TextMetric):
    """spice of all predictions of all ranks, in 0 .. 1. `tokenized`: the texts are already PTB words.

    Raises UsageError for a `language` other than English: parser and synonyms are English.
    """

    def __init__(self, tokenized: bool = False, language: str = "en") -> None:
        super().__init__()
        if primary_language(language) != "en":
            raise UsageError(f"SPICE: expected language=en, the only one it parses, got {language!r}; omit spice")
        require_spice()
        self.tokenized = tokenized

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        return {"spice": spice(predictions, references, tokenized=self.tokenized)}

    def image_sums(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> ImageSums:
        return image_means({"spice": spice_scores(predictions, references, tokenized=self.tokenized)})
