"""Deliberately mismatched captions: simulates noisy web data with a known share of errors."""

from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from capkit.data.records import Record
from capkit.data.sources.base import DataSource, is_rejected, prepare_source
from capkit.errors import UsageError
from capkit.utils.ranges import Probability, Seed, check_ranges
from capkit.utils.rng import generator


@check_ranges
class Mismatched:
    """A data source in which a `share` of the images has the captions of another image.

    The exchange depends only on the seed and the size of the source. A record's metadata moves with its captions and
    gains a flag "mismatched". Raises UsageError for a share outside [0, 1], or one of a single image.
    """

    def __init__(self, source: DataSource, share: Probability, seed: Seed = 0) -> None:
        self._source = source
        order = generator(seed, "mismatched", len(source)).permutation(len(source))
        chosen = order[: round(share * len(source))]
        if len(chosen) == 1:
            raise UsageError(f"share={share} of {len(source)} images is one image; two are needed to exchange captions")
        self._captions_of = np.arange(len(source))
        self._captions_of[chosen] = np.roll(chosen, 1)

    def prepare(self) -> None:
        prepare_source(self._source)

    def __len__(self) -> int:
        return len(self._source)

    def record(self, index: int) -> Record:
        record, other = self._source.record(index), self._source.record(int(self._captions_of[index]))
        metadata = {**other.metadata, "mismatched": bool(self._captions_of[index] != index)}
        return replace(record, captions=other.captions, metadata=metadata)

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._source.image(index)

    def is_rejected(self, text: str) -> bool | None:
        return is_rejected(self._source, text)
