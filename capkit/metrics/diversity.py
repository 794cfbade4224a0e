"""Diversity and degeneration of captions: distinct n-grams, repetition, bad endings, length, vocabulary, self-CIDEr.

All on PTB tokens (lower case, without punctuation), as the COCO tools see captions.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from capkit.errors import UsageError
from capkit.metrics.coco.document_frequencies import WORDS, DocumentFrequencies
from capkit.metrics.self_cider import self_cider
from capkit.metrics.text_metric import TextMetric
from capkit.text.checked import require_words
from capkit.text.ptb import ptb_tokenize
from capkit.utils.ranges import PositiveInt, check_ranges

Words = list[str]

BAD_ENDINGS = frozenset(
    (
        "a",
        "an",
        "the",
        "in",
        "for",
        "at",
        "of",
        "with",
        "before",
        "after",
        "on",
        "upon",
        "near",
        "to",
        "is",
        "are",
        "am",
    )
)
"""Words that do not end a complete caption: the list in ruotianluo/ImageCaptioning.pytorch (eval_utils.py)."""


def ngrams(words: Words, n: int) -> list[tuple[str, ...]]:
    require_words(words, "words")
    return list(zip(*(words[i:] for i in range(n)), strict=False))


def distinct(captions: Iterable[Words], n: int) -> float:
    """Distinct-n of a corpus: distinct n-grams divided by all n-grams (Li et al. 2016); 0 if there are none.

    It decreases as a corpus grows: compare only equal numbers of captions.
    """
    counts = Counter(gram for words in captions for gram in ngrams(words, n))
    return len(counts) / counts.total() if counts else 0.0


def div(captions: Sequence[Words], n: int) -> float:
    """Div-n of one image's captions: distinct n-grams divided by words (Shetty et al. 2017)."""
    words = sum(map(len, captions))
    return len({gram for caption in captions for gram in ngrams(caption, n)}) / words if words else 0.0


def repetition(words: Words, n: int = 2) -> float:
    """Fraction of a caption's n-grams that repeat an earlier one: seq-rep-n of Welleck et al. 2020; 0 below n words."""
    grams = ngrams(words, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def has_bad_ending(words: Words) -> bool:
    """Whether the caption breaks off: its last word is an article, preposition or form of "be". False if empty."""
    require_words(words, "words")
    return bool(words) and words[-1] in BAD_ENDINGS


@check_ranges
class Diversity(TextMetric):
    """All diversity and degeneration numbers of a set of captions.

    Rows with the same metadata "key" are captions of one image. If there are such rows, `self_cider`, `div_1` and
    `div_2` are added: means over images with two or more captions. Document frequencies for self-CIDEr come from the
    references of all images, or from a file saved by `DocumentFrequencies`. `repetition`, `bad_endings` and `empty` are
    fractions; `length` is in words.
    """

    higher_is_better = None

    def __init__(self, repetition_ngram: PositiveInt = 2, document_frequencies: str | None = None) -> None:
        frequencies = None if document_frequencies is None else DocumentFrequencies.load(document_frequencies)
        if frequencies is not None and frequencies.units != WORDS:
            raise UsageError(f"self-CIDEr: expected document frequencies of PTB words; got units {frequencies.units!r}")
        super().__init__()
        self.repetition_ngram, self.frequencies = repetition_ngram, frequencies

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        lines = ptb_tokenize(predictions)
        captions = [line.split() for line in lines]
        count = len(captions)
        numbers = {
            "distinct_1": distinct(captions, 1),
            "distinct_2": distinct(captions, 2),
            "repetition": sum(repetition(words, self.repetition_ngram) for words in captions) / count,
            "bad_endings": sum(map(has_bad_ending, captions)) / count,
            "empty": sum(not words for words in captions) / count,
            "length": sum(map(len, captions)) / count,
            "vocabulary_size": float(len({word for words in captions for word in words})),
        }
        keys = [str(row.get("key", i)) for i, row in enumerate(metadata)]
        return numbers | self._within_images(lines, references, keys)

    def _within_images(self, lines: list[str], references: list[list[str]], keys: list[str]) -> dict[str, float]:
        groups: dict[str, list[str]] = defaultdict(list)
        for key, line in zip(keys, lines, strict=True):
            groups[key].append(line)
        several = [group for group in groups.values() if len(group) > 1]
        if not several:
            return {}
        frequencies = self.frequencies or _frequencies(dict(zip(keys, references, strict=True)))
        words = [[line.split() for line in group] for group in several]
        totals = {
            "self_cider": sum(self_cider(group, frequencies) for group in several),
            "div_1": sum(div(group, 1) for group in words),
            "div_2": sum(div(group, 2) for group in words),
        }
        return {name: total / len(several) for name, total in totals.items()}


def _frequencies(references: dict[str, list[str]]) -> DocumentFrequencies:
    if not any(references.values()):
        raise UsageError(
            "self-CIDEr needs references for its document frequencies; got none; pass references, or set "
            "document_frequencies"
        )
    return DocumentFrequencies.from_references(list(references.values()))
