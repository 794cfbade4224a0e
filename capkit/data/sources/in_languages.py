"""A data source's captions in chosen languages."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from jaxtyping import Int, UInt8

from capkit.data.files import FileSource
from capkit.data.records import Record
from capkit.data.sources.base import DataSource, Encoded, Preparable, is_rejected
from capkit.errors import UsageError


class InLanguages:
    """The captions of `source` in the given languages (`Caption.language`, BCP 47 tags as the data writes them).

    Images without one are left out. All records are read once, at first use. Raises UsageError there, with the tags
    that the data has and how many captions each, if a language has no caption.
    """

    def __init__(self, source: DataSource, languages: Sequence[str], split: str) -> None:
        if not languages:
            raise UsageError(
                "data.languages: expected at least one tag, such as [pt-BR], got []; null keeps all captions"
            )
        self._source, self._languages, self._split = source, frozenset(languages), split
        # Only what the source offers too: these decide how pictures are read, and whether something is prepared.
        if isinstance(source, FileSource):
            self.files = source.files
        if isinstance(source, Encoded):
            self.encoded = self._encoded
        if isinstance(source, Preparable):
            self.prepare = source.prepare

    @cached_property
    def _places(self) -> Int[np.ndarray, " N"]:
        counts: Counter[str] = Counter()
        places = []
        for index in range(len(self._source)):
            spoken = [caption.language for caption in self._source.record(index).captions]
            counts.update(spoken)
            if not self._languages.isdisjoint(spoken):
                places.append(index)
        if missing := sorted(self._languages - set(counts)):
            has = ", ".join(f"{language} ({number:,})" for language, number in counts.most_common()) or "no captions"
            raise UsageError(
                f"data.languages: no caption of {self._split} is in {' or '.join(missing)}; its captions are in {has}; "
                "give some of these"
            )
        return np.array(places, np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def record(self, index: int) -> Record:
        record = self._source.record(int(self._places[index]))
        return replace(record, captions=[c for c in record.captions if c.language in self._languages])

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._source.image(int(self._places[index]))

    def _encoded(self, index: int) -> bytes:
        assert isinstance(self._source, Encoded)
        return self._source.encoded(int(self._places[index]))

    def is_rejected(self, text: str) -> bool | None:
        return is_rejected(self._source, text)
