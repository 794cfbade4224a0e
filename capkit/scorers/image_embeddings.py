"""Embeddings of pictures by record key, for rewards; each picture is read and encoded once per run.

N pictures, D width.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.fault_tolerance.oom import map_in_chunks
from capkit.models.dual_encoders.base import DualEncoder
from capkit.models.dual_encoders.cached import CachedDualEncoder
from capkit.scorers.base import ReadImage

_BATCH = 64


class ImageEmbeddings:
    """Unit-norm float32 embeddings of pictures, computed at first use and cached in CPU memory.

    Pictures come unprocessed from the reader given to `attach_images`, since `batch.pixels` are preprocessed for the
    captioner. An unreadable picture (the reader returns None) has a row of NaN.

    With `folder` they are also cached on disk, and the next run reads each picture but does not encode it. The cache on
    disk is keyed by pixels, because two data sets may use the same key and a file may change.
    """

    def __init__(self, encoder: DualEncoder, folder: str | None = None) -> None:
        self.encoder = encoder
        self._images = encoder if folder is None else CachedDualEncoder(encoder, folder)
        self._read: ReadImage | None = None
        self._device = torch.device("cpu")
        self._width: int | None = None
        self._rows: dict[str, Float[Tensor, " D"]] = {}

    def attach_images(self, read: ReadImage) -> None:
        """Set the function that returns a record's picture by key (of any split), or None if it cannot be read.

        Pictures of an earlier function are forgotten: its keys may name others.
        """
        if read != self._read:
            self._rows.clear()
        self._read = read

    def to(self, device: torch.device | str) -> "ImageEmbeddings":
        self._device = torch.device(device)
        self._images.to(device)
        return self

    @property
    def width(self) -> int:
        """D, determined without reading a picture."""
        if self._width is None:
            self._width = self.encoder.encode_text(["a"]).shape[1]
        return self._width

    def __call__(self, keys: Sequence[str]) -> Float[Tensor, "N D"]:
        """The embeddings on the device given to `to`. Raises UsageError if no reader is attached."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._rows]
        # A resumed run misses other pictures, and the composition of a batch changes rounding. So pictures are encoded
        # one by one on the CPU, where resuming is exact to the last bit.
        size = 1 if self._device.type == "cpu" else _BATCH
        map_in_chunks(missing, self._encode, size)
        rows = [self._rows[key] for key in keys]
        return (torch.stack(rows) if rows else torch.empty(0, self.width)).to(self._device)

    def _encode(self, keys: list[str]) -> None:
        if self._read is None:
            raise UsageError("this reward looks at pictures and has no reader of them; call attach_images(read) first")
        pictures = {key: self._read(key) for key in keys}
        found = {key: picture for key, picture in pictures.items() if picture is not None}
        if found:
            rows = self._images.encode_image(self._images.preprocess(list(found.values())))
            self._rows.update(zip(found, rows.float().cpu(), strict=True))
        for key in pictures.keys() - found.keys():
            self._rows[key] = torch.full((self.width,), torch.nan)
