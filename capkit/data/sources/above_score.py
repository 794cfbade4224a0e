"""Captions whose score reaches a threshold: the plain alternative to learning from noisy captions by their level."""

from dataclasses import replace
from functools import cached_property

import numpy as np
from jaxtyping import Int, UInt8

from capkit.data.records import Caption, Record
from capkit.data.sources.base import DataSource, is_rejected, picture_file, prepare_source
from capkit.errors import UsageError
from capkit.utils.ranges import FiniteFloat, check_ranges


@check_ranges
class AboveScore:
    """A source's records with those of their captions that have a score of `min_score` or more.

    Records without any such caption are left out; a caption without a score is none. All records are read at first use.
    Raises UsageError where no caption of the source is kept.
    """

    def __init__(self, source: DataSource, min_score: FiniteFloat) -> None:
        self._source, self._min_score = source, float(min_score)

    def prepare(self) -> None:
        prepare_source(self._source)

    @cached_property
    def _kept(self) -> Int[np.ndarray, " N"]:
        best = [
            max((caption.score for caption in record.captions if caption.score is not None), default=None)
            for record in map(self._source.record, range(len(self._source)))
        ]
        kept = [index for index, score in enumerate(best) if score is not None and score >= self._min_score]
        if not kept:
            known = [score for score in best if score is not None]
            found = f"the best score is {max(known):.4g}" if known else "no caption has a score (`capkit align`)"
            raise UsageError(
                f"data.min_score={self._min_score:g}: expected captions with that score or more, got none: {found}"
            )
        return np.array(kept)

    def __len__(self) -> int:
        return len(self._kept)

    def record(self, index: int) -> Record:
        record = self._source.record(int(self._kept[index]))
        return replace(record, captions=[caption for caption in record.captions if self._reaches(caption)])

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._source.image(int(self._kept[index]))

    def is_rejected(self, text: str) -> bool | None:
        return is_rejected(self._source, text)

    def _reaches(self, caption: Caption) -> bool:
        return caption.score is not None and caption.score >= self._min_score


class AboveScoreOfFiles(AboveScore):
    """The same of a source whose pictures are files, which are read as that source's are."""

    def encoded(self, index: int) -> bytes:
        read = picture_file(self._source)
        assert read is not None
        return read(int(self._kept[index]))


def above_score(source: DataSource, min_score: float | int) -> AboveScore:
    of_files = picture_file(source) is not None
    return AboveScoreOfFiles(source, min_score) if of_files else AboveScore(source, min_score)
