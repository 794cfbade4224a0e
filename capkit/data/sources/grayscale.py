"""Pictures without colours: what is left to a captioner that sees shapes and brightness alone."""

import numpy as np
from jaxtyping import UInt8

from capkit.data.fingerprint import fingerprint, fingerprint_of
from capkit.data.records import Record
from capkit.data.sources.base import DataSource, is_rejected, prepare_source

_LUMA = np.array([299, 587, 114])  # ITU-R BT.601, in thousandths


def gray(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Each pixel's luma (ITU-R BT.601) in all three channels."""
    luma = ((pixels.astype(np.int64) @ _LUMA + 500) // 1000).astype(np.uint8)
    return np.repeat(luma[..., None], 3, axis=2)


class Grayscale:
    """The records of `source`, their pictures in gray. Captions stay as they are, colours included."""

    def __init__(self, source: DataSource) -> None:
        self._source = source

    def prepare(self) -> None:
        prepare_source(self._source)

    def fingerprint(self) -> str:
        return fingerprint_of(source=fingerprint(self._source), pictures="gray")

    def __len__(self) -> int:
        return len(self._source)

    def record(self, index: int) -> Record:
        return self._source.record(index)

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return gray(self._source.image(index))

    def is_rejected(self, text: str) -> bool | None:
        return is_rejected(self._source, text)
