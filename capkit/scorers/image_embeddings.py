"""Embeddings of pictures by record key, for rewards; each picture is read and encoded once per run.

N pictures, D width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.fault_tolerance.oom import map_in_chunks
from capkit.models.dual_encoders.base import DualEncoder
from capkit.models.dual_encoders.cached import CachedDualEncoder
from capkit.scorers.base import ReadImage
from capkit.types import Pictures
from capkit.utils.later import Later
from capkit.utils.tensors import send

_BATCH = 64


class ImageEmbeddings:
    """Unit-norm float32 embeddings of pictures, computed at first use and cached in CPU memory.

    Pictures come unprocessed from the reader given to `attach_images`, since `batch.pixels` are preprocessed for the
    captioner; or with a batch, preprocessed by the loader's workers (`preprocess`, then `look`). An unreadable picture
    (the reader returns None) has a row of NaN.

    With `folder` they are also cached on disk, and the next run reads each picture but does not encode it. The cache on
    disk is keyed by pixels, because two data sets may use the same key and a file may change.
    """

    def __init__(self, encoder: DualEncoder, folder: str | None = None) -> None:
        self.encoder = encoder
        self._images: Any = encoder if folder is None else CachedDualEncoder(encoder, folder)
        self._read: ReadImage | None = None
        self._device = torch.device("cpu")
        self._width: int | None = None
        self._rows: dict[str, Float[Tensor, " D"]] = {}
        self._late: list[tuple[list[str], Tensor, Later]] = []  # rows on the GPU, and on their way to the CPU
        self._unreadable: set[str] = set()

    def attach_images(self, read: ReadImage) -> None:
        """Set the function that returns a record's picture by key (of any split), or None if it cannot be read.

        Pictures of an earlier function are forgotten: its keys may name others.
        """
        if read != self._read:
            self._rows.clear()
            self._late.clear()
            self._unreadable.clear()
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

    def unseen(self, keys: Sequence[str]) -> list[str]:
        """Those of the keys, each once, whose pictures were not looked at yet."""
        return [key for key in dict.fromkeys(keys) if key not in self._rows]

    def readable(self, keys: Sequence[str]) -> list[bool]:
        """Whether each picture, once looked at, could be read."""
        return [key not in self._unreadable for key in keys]

    def preprocess(self, keys: Sequence[str]) -> Pictures:
        """Read pictures for `look`, in a loader's worker: pixels of those that can be read and have no row on disk."""
        found = {key: picture for key, picture in self._pictures(keys).items() if picture is not None}
        if not found:
            return Pictures(list(keys), [])
        pixels = self._images.preprocess(list(found.values()))
        if not isinstance(self._images, CachedDualEncoder):
            return Pictures(list(keys), list(found), pixels)
        contents = self._images.contents(pixels)
        places = self._images.unknown(contents)
        return Pictures(list(keys), list(found), pixels[places], contents, places)

    def look(self, pictures: Pictures) -> None:
        """Embed pictures that a worker has preprocessed. Does not wait for the device."""
        if isinstance(self._images, CachedDualEncoder) and pictures.found:
            given = dict(zip(pictures.places, pictures.pixels if pictures.pixels is not None else (), strict=True))
            self._keep(pictures.found, self._images.rows_of(pictures.contents, given))
        elif pictures.pixels is not None:
            rows = map_in_chunks(pictures.pixels, self._images.encode_image, self._at_once)
            self._keep(pictures.found, torch.cat(rows))
        self._note_unreadable(set(pictures.asked) - set(pictures.found))

    def __call__(self, keys: Sequence[str]) -> Float[Tensor, "N D"]:
        """The embeddings on the device given to `to`. Raises UsageError if no reader is attached."""
        map_in_chunks(self.unseen(keys), self._encode, self._at_once)
        if not keys:
            return torch.empty(0, self.width, device=self._device)
        self._settle()
        on_device: dict[str, Tensor] = {}
        for names, rows, _ in self._late:
            on_device |= zip(names, rows.unbind(), strict=True)
        if all(key in on_device for key in keys):
            return torch.stack([on_device[key] for key in keys])
        self._settle(wait=True)
        return send(torch.stack([self._rows[key] for key in keys]), self._device)

    @property
    def _at_once(self) -> int:
        # A resumed run misses other pictures, and the composition of a batch changes rounding. So pictures are encoded
        # one by one on the CPU, where resuming is exact to the last bit.
        return 1 if self._device.type == "cpu" else _BATCH

    def _pictures(self, keys: Sequence[str]) -> dict[str, Any]:
        if self._read is None:
            raise UsageError("this reward looks at pictures and has no reader of them; call attach_images(read) first")
        return {key: self._read(key) for key in keys}

    def _encode(self, keys: list[str]) -> None:
        pictures = self._pictures(keys)
        found = {key: picture for key, picture in pictures.items() if picture is not None}
        if found:
            rows = self._images.encode_image(self._images.preprocess(list(found.values())))
            self._keep(list(found), rows)
        self._note_unreadable(pictures.keys() - found.keys())

    def _note_unreadable(self, keys: set[str]) -> None:
        self._unreadable |= keys
        for key in keys:
            self._rows[key] = torch.full((self.width,), torch.nan)

    def _keep(self, keys: list[str], rows: Float[Tensor, "N D"]) -> None:
        """Rows on a GPU are there at once and reach the CPU later."""
        rows = rows.float()
        self._late.append((keys, rows, Later(rows)))
        self._rows |= dict.fromkeys(keys, torch.empty(0))  # seen
        self._settle()

    def _settle(self, wait: bool = False) -> None:
        """Take rows that have reached the CPU; with `wait`, all."""
        while self._late and (wait or self._late[0][2].is_there()):
            keys, _, late = self._late.pop(0)
            self._rows |= zip(keys, late.read().clone().unbind(), strict=True)  # not kept in pinned memory
