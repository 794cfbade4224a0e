"""Data source over shards that `capkit shard` wrote or indexed: any order, one read a picture. docs/data.md."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

from jaxtyping import UInt8
from numpy import ndarray

from capkit.data.files import ImageFiles
from capkit.data.images import MAX_BYTES, BadImage, load_rgb, open_regular
from capkit.data.records import Record, parse_line
from capkit.data.shard_index import NO_TAR, ShardIndex, hash_of

_MAX_OPEN = 64  # files that a process keeps open


class Shards:
    """The records of one split, in the order and with the keys of the source that the shards were made of.

    A picture that could not be used when the shards were written raises BadImage with the reason that it had then; so
    does one whose bytes have changed since.

    Args:
        folder: What `capkit shard` wrote.
        split: "train", "val", "test" or "predict".
    """

    def __init__(self, folder: str, split: str) -> None:
        self._arguments = (folder, split)
        self._index = ShardIndex(folder, split)
        self._open: OrderedDict[Path, BinaryIO] = OrderedDict()
        self.files = ImageFiles(self._index.folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return Shards, self._arguments  # open files stay in their process

    def __len__(self) -> int:
        return len(self._index)

    def fingerprint(self) -> str:
        """That of the source: a run on the pictures' folder can go on with their shards."""
        return self._index.fingerprint

    def record(self, index: int) -> Record:
        index = range(len(self))[index]
        start, end = int(self._index[index]["line"]), self._index.line_end(index)
        file = self._file(self._index.lines)
        size = (os.fstat(file.fileno()).st_size if end is None else end) - start
        return parse_line(os.pread(file.fileno(), size, start), self._index.lines, index + 1)

    def encoded(self, index: int) -> bytes:
        """The bytes of a picture's file. Raises BadImage if they are not those that were indexed."""
        index = range(len(self))[index]
        row = self._index[index]
        if row["tar"] == NO_TAR:
            raise BadImage(self._index.reason(index))
        tar = self._index.tars[row["tar"]]
        try:
            file = self._file(self._index.folder / tar.path)
            data = os.pread(file.fileno(), min(int(row["size"]), MAX_BYTES), int(row["offset"]))
        except OSError as error:
            raise BadImage(error.strerror or type(error).__name__) from error
        if hash_of(data) != row["hash"]:
            raise BadImage(f"{tar.path} holds other bytes than those that were indexed")
        return data

    def image(self, index: int) -> UInt8[ndarray, "H W 3"]:
        return load_rgb(self.encoded(index))

    def _file(self, path: Path) -> BinaryIO:
        """The open file. Reads give the place, so that processes may share it after a fork."""
        if path not in self._open:
            self._open[path] = open_regular(path)
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(path)
        return self._open[path]
