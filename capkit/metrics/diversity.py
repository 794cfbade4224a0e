"""Diversity and degeneration of captions: distinct n-grams, repetition, bad endings, length, vocabulary, self-CIDEr.

On words in lower case without punctuation: in English PTB tokens, as the COCO tools see captions.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from capkit.errors import UsageError
from capkit.metrics.bootstrap import ImageSums, image_means
from capkit.metrics.coco.document_frequencies import WORDS, DocumentFrequencies
from capkit.metrics.self_cider import self_cider
from capkit.metrics.text_metric import TextMetric
from capkit.text.checked import require_words
from capkit.text.normalize import normalize_all, primary_language
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
PORTUGUESE_BAD_ENDINGS = frozenset(
    {"o", "a", "os", "as", "um", "uma", "uns", "umas", "e", "ou", "que", "é", "são", "está", "estão"}
    | {"de", "em", "por", "para", "com", "sem", "sob", "sobre", "até", "entre", "ao", "aos", "à", "às"}
    | {"do", "da", "dos", "das", "no", "na", "nos", "nas", "num", "numa", "nuns", "numas", "dum", "duma"}
    | {"pelo", "pela", "pelos", "pelas", "àquele", "àquela", "àqueles", "àquelas"}
)
"""The same of Portuguese: articles, prepositions, their contractions, and forms of "ser" and "estar"."""
_BAD_ENDINGS = {"en": BAD_ENDINGS, "pt": PORTUGUESE_BAD_ENDINGS}


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


def has_bad_ending(words: Words, endings: Collection[str] = BAD_ENDINGS) -> bool:
    """Whether the caption breaks off: its last word is an article, preposition or form of "be". False if empty."""
    require_words(words, "words")
    return bool(words) and words[-1] in endings


@check_ranges
class Diversity(TextMetric):
    """All diversity and degeneration numbers of a set of captions.

    Rows with the same metadata "key" are captions of one image. If there are such rows, `self_cider`, `div_1` and
    `div_2` are added: means over images with two or more captions. Document frequencies for self-CIDEr come from the
    references of all images, or from a file saved by `DocumentFrequencies`. `repetition`, `bad_endings` and `empty` are
    fractions; `length` is in words. `bad_endings` is known for English and Portuguese and left out for others.
    """

    resamples_cheaply = True

    higher_is_better = None

    def __init__(
        self, repetition_ngram: PositiveInt = 2, document_frequencies: str | None = None, language: str = "en"
    ) -> None:
        frequencies = None if document_frequencies is None else DocumentFrequencies.load(document_frequencies)
        if frequencies is not None and frequencies.units != WORDS:
            raise UsageError(f"self-CIDEr: expected document frequencies of PTB words; got units {frequencies.units!r}")
        super().__init__()
        self.repetition_ngram, self.frequencies = repetition_ngram, frequencies
        self.language, self._endings = language, _BAD_ENDINGS.get(primary_language(language))

    def score(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> dict[str, float]:
        lines = normalize_all(predictions, self.language)
        captions = [line.split() for line in lines]
        numbers = {
            "distinct_1": distinct(captions, 1),
            "distinct_2": distinct(captions, 2),
            **{name: sum(values) / len(values) for name, values in self._of_captions(captions).items()},
            "vocabulary_size": float(len({word for words in captions for word in words})),
        }
        keys = [str(row.get("key", i)) for i, row in enumerate(metadata)]
        return numbers | self._within_images(lines, references, keys)

    def image_sums(
        self, predictions: list[str], references: list[list[str]], metadata: list[dict[str, Any]]
    ) -> ImageSums:
        """Of what is a mean over captions; distinct n-grams and the vocabulary are not."""
        return image_means(self._of_captions([line.split() for line in normalize_all(predictions, self.language)]))

    def _of_captions(self, captions: Sequence[Words]) -> dict[str, list[float]]:
        values = {
            "repetition": [repetition(words, self.repetition_ngram) for words in captions],
            "bad_endings": [float(has_bad_ending(words, self._endings or ())) for words in captions],
            "empty": [float(not words) for words in captions],
            "length": [float(len(words)) for words in captions],
        }
        return {name: value for name, value in values.items() if name != "bad_endings" or self._endings is not None}

    def _within_images(self, lines: list[str], references: list[list[str]], keys: list[str]) -> dict[str, float]:
        groups: dict[str, list[str]] = defaultdict(list)
        for key, line in zip(keys, lines, strict=True):
            groups[key].append(line)
        several = [group for group in groups.values() if len(group) > 1]
        if not several:
            return {}
        frequencies = self.frequencies or _frequencies(dict(zip(keys, references, strict=True)), self.language)
        words = [[line.split() for line in group] for group in several]
        totals = {
            "self_cider": sum(self_cider(group, frequencies) for group in several),
            "div_1": sum(div(group, 1) for group in words),
            "div_2": sum(div(group, 2) for group in words),
        }
        return {name: total / len(several) for name, total in totals.items()}


def _frequencies(references: dict[str, list[str]], language: str) -> DocumentFrequencies:
    if not any(references.values()):
        raise UsageError(
            "self-CIDEr needs references for its document frequencies; got none; pass references, or set "
            "document_frequencies"
        )
    return DocumentFrequencies.from_references(list(references.values()), language=language)
