"""Captions translated word for word by a table that word alignment learned from a training split."""

import re
from dataclasses import replace
from functools import cached_property

import numpy as np
from jaxtyping import UInt8

from capkit.data.records import Caption, Record
from capkit.data.sources.base import DataSource, prepare_source
from capkit.errors import UsageError
from capkit.text.word_alignment import word_table
from capkit.utils.ranges import PositiveInt, check_ranges

_PARTS = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]+|\s+")


def words_of(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return [part.lower() for part in _PARTS.findall(text) if part[0].isalnum()]


def translated(text: str, table: dict[str, str]) -> str:
    """Each word as the table has it, in its place; words that it lacks, spaces and punctuation stay.

    A word that began with a capital does so again.
    """
    return "".join(_translated(part, table) for part in _PARTS.findall(text))


def _translated(part: str, table: dict[str, str]) -> str:
    word = table.get(part.lower(), part)
    return word[0].upper() + word[1:] if part[0].isupper() else word


@check_ranges
class WordForWord:
    """The pictures of `source`, its captions translated word for word.

    The table comes from pictures of `training` with a caption in either language: a word becomes the one that IBM model
    1 finds most probable, and stays where training captions lack it. So the order is that of the original, and nothing
    agrees. Metadata `original` are the captions before.

    Args:
        source: Pictures with captions in `original`.
        training: Pictures with captions in both languages, of the training split.
        language: BCP 47 tag of the translation.
        original: BCP 47 tag of what is translated.
        iterations: Of expectation maximisation.
    """

    def __init__(
        self,
        source: DataSource,
        training: DataSource,
        language: str = "pt-BR",
        original: str = "en",
        iterations: PositiveInt = 10,
    ) -> None:
        if language == original:
            raise UsageError(f"expected two languages, got language={language} twice; set language or original")
        self._source, self._training, self._iterations = source, training, iterations
        self._language, self._original = language, original

    @cached_property
    def table(self) -> dict[str, str]:
        """The translation of each word that training captions have."""
        pairs = []
        for index in range(len(self._training)):
            captions = self._training.record(index).captions
            first, other = (
                [words_of(caption.text) for caption in captions if caption.language == language]
                for language in (self._original, self._language)
            )
            pairs += list(zip(first, other, strict=False))
        if not pairs:
            raise UsageError(
                f"no training picture has captions in {self._original} and in {self._language}; give a training source "
                f"of both, such as languages=[{self._original}, {self._language}]"
            )
        return word_table(pairs, self._iterations)

    def prepare(self) -> None:
        for source in (self._source, self._training):
            prepare_source(source)

    def __len__(self) -> int:
        return len(self._source)

    def record(self, index: int) -> Record:
        record = self._source.record(index)
        originals = [caption.text for caption in record.captions if caption.language == self._original]
        captions = [Caption(translated(text, self.table), "word table", self._language) for text in originals]
        return replace(record, captions=captions, metadata={**record.metadata, "original": originals})

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._source.image(index)
