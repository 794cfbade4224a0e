"""What a rater makes of pictures before it reads a caption, kept by record key.

N pictures.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError
from capkit.fault_tolerance.oom import map_in_chunks
from capkit.models.raters.base import Rater
from capkit.scorers.base import ReadImage
from capkit.types import Pictures


class SeenPictures:
    """Pictures that a rater has encoded, on its device, the latest up to `gigabytes`; a viewer of training pictures.

    An embedding of a dual encoder takes a kilobyte or two, the tokens of BLIP or of a chat model megabytes: of these
    not all of a large data set are kept, and those that were let go are encoded again. An unreadable picture has none.
    """

    def __init__(self, rater: Rater, gigabytes: float) -> None:
        self._rater, self._room = rater, gigabytes * 2**30
        self._read: ReadImage | None = None
        self._rows = OrderedDict[str, Tensor | None]()
        self._bytes = 0

    def attach_images(self, read: ReadImage) -> None:
        """Pictures of an earlier reader are forgotten: its keys may name others."""
        if read != self._read:
            self.forget()
        self._read = read

    def forget(self) -> None:
        self._rows.clear()
        self._bytes = 0

    def unseen(self, keys: Sequence[str]) -> list[str]:
        """Those of the keys, each once, whose pictures are not kept."""
        return [key for key in dict.fromkeys(keys) if key not in self._rows]

    def preprocess(self, keys: Sequence[str]) -> Pictures:
        """Read pictures for `look`, in a loader's worker."""
        found = self._pictures(keys)
        pixels = self._rater.preprocess(list(found.values())) if found else None
        return Pictures(list(keys), list(found), pixels)

    def look(self, pictures: Pictures) -> None:
        """Encode pictures that a worker has preprocessed."""
        rows = [] if pictures.pixels is None else self._encoded(pictures.pixels)
        self._keep(dict.fromkeys(pictures.asked) | dict(zip(pictures.found, rows, strict=True)))

    def __call__(self, keys: Sequence[str]) -> tuple[list[str], Float[Tensor, "N ..."] | None]:
        """Those of the keys, each once, whose pictures can be read, and what the rater makes of them; None of none."""
        given = list(dict.fromkeys(keys))
        held = {key: self._rows[key] for key in given if key in self._rows}
        if missing := self.unseen(given):
            found = self._pictures(missing)
            pixels = self._rater.preprocess(list(found.values())) if found else None
            rows = [] if pixels is None else self._encoded(pixels)
            held |= dict.fromkeys(missing) | dict(zip(found, rows, strict=True))
        self._keep(held)
        seen = [(key, row) for key in given if (row := held[key]) is not None]
        return [key for key, _ in seen], torch.stack([row for _, row in seen]) if seen else None

    def _pictures(self, keys: Sequence[str]) -> dict[str, Any]:
        if self._read is None:
            raise UsageError("a rater looks at pictures and has no reader of them; call attach_images(read) first")
        read = {key: self._read(key) for key in keys}
        return {key: picture for key, picture in read.items() if picture is not None}

    def _encoded(self, pixels: Float[Tensor, "N 3 H W"]) -> list[Tensor]:
        # One by one on the CPU: which pictures are encoded together would change the last bits, and a resumed run
        # encodes others together.
        at_once = 1 if self._rater.device.type == "cpu" else self._rater.batch_size
        # Copies: of a view, all that was encoded with it would stay in memory.
        return [row.clone() for rows in map_in_chunks(pixels, self._rater.look, at_once) for row in rows]

    def _keep(self, rows: dict[str, Tensor | None]) -> None:
        """Keep these as the latest, and let the earliest go where they take too much room."""
        for key, row in rows.items():
            self._bytes += _size(row) - _size(self._rows.pop(key, None))
            self._rows[key] = row
        while self._bytes > self._room and self._rows:
            _, row = self._rows.popitem(last=False)
            self._bytes -= _size(row)


def _size(row: Tensor | None) -> int:
    return 0 if row is None else row.nbytes
