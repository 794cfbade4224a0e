"""Load images from plain files under a root and from members of tar shards ("shard.tar::member")."""

import tarfile
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from capkit.data.images import BadImage, image_size, load_rgb, open_regular, read_file, read_part

SHARD = ".tar::"


class ImageFiles:
    """Load images by reference: a path, absolute or relative to `root`, or a member of an uncompressed tar.

    Each process indexes a shard's headers at first use; then loading a member takes one read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._members: dict[str, dict[str, tuple[int, int]]] = {}

    def load(self, reference: str | None) -> UInt8[np.ndarray, "H W 3"]:
        """Load an image. Raises BadImage if there is no such file or member, or it is not a usable image."""
        return load_rgb(self._find(reference))

    def read(self, reference: str | None) -> bytes:
        """The bytes of an image's file, not decoded. Raises BadImage if there is no such file or member."""
        found = self._find(reference)
        return found if isinstance(found, bytes) else read_file(found)

    def size(self, reference: str | None) -> tuple[int, int]:
        """Width and height of an image in pixels, without decoding it. Raises BadImage as `load` does."""
        return image_size(self._find(reference))

    def absolute(self, reference: str) -> str:
        """The same reference as an absolute path, for readers with another root."""
        return str(self.root.absolute() / reference)

    def _find(self, reference: str | None) -> Path | bytes:
        if reference is None:
            raise BadImage("the record names no image")
        shard, separator, member = reference.partition(SHARD)
        return self._member(self.root / f"{shard}.tar", member) if separator else self.root / reference

    def _member(self, shard: Path, member: str) -> bytes:
        if str(shard) not in self._members:
            self._members[str(shard)] = _index(shard)
        if member not in self._members[str(shard)]:
            raise BadImage(f"no member {member!r} in the shard")
        offset, size = self._members[str(shard)][member]
        with open_regular(shard) as file:
            return read_part(file, offset, size)


@runtime_checkable
class FileSource(Protocol):
    """A data source whose records name files below `files.root`."""

    files: ImageFiles


def _index(shard: Path) -> dict[str, tuple[int, int]]:
    try:
        with open_regular(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            return {m.name: (m.offset_data, m.size) for m in tar if m.isfile()}
    except (OSError, tarfile.TarError) as error:
        raise BadImage(f"the shard cannot be read as an uncompressed tar: {error}") from error
