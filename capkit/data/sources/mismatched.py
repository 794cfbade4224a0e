"""Wrong captions by design: what web data are like, with the share of errors known."""

from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from capkit.data.records import Record
from capkit.data.sources.base import DataSource, Preparable
from capkit.errors import UsageError
from capkit.utils.ranges import Probability, Seed, check_ranges
from capkit.utils.rng import generator


@check_ranges
class Mismatched:
    """A data source of whose images a `share` has the captions of another image.

    Which ones, and whose, depends on the seed and the size of the source alone. The metadata of a record goes with its
    captions, and says "mismatched". Raises UsageError for a share outside [0, 1], or that leaves nothing to exchange.
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
        if isinstance(self._source, Preparable):
            self._source.prepare()

    def __len__(self) -> int:
        return len(self._source)

    def record(self, index: int) -> Record:
        record, other = self._source.record(index), self._source.record(int(self._captions_of[index]))
        metadata = {**other.metadata, "mismatched": bool(self._captions_of[index] != index)}
        return replace(record, captions=other.captions, metadata=metadata)

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._source.image(index)
