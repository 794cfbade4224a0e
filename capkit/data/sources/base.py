"""The protocol of a data source, and the cleaning of its captions."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from capkit.data.files import FileSource
from capkit.data.records import Caption, Record
from capkit.text.caption_text import clean_text


@runtime_checkable
class DataSource(Protocol):
    """Captioned images by index. Constructors check paths; files are parsed at first use.

    `image` raises BadImage for an unusable image. The order of records is the same in every process.
    """

    def __len__(self) -> int: ...

    def record(self, index: int) -> Record: ...

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]: ...


@runtime_checkable
class Preparable(Protocol):
    """A source with a cache that one process builds before others read it."""

    def prepare(self) -> None: ...


def prepare_source(source: DataSource | None) -> None:
    """Build the source's cache, if it has one."""
    if isinstance(source, Preparable):
        source.prepare()


@runtime_checkable
class RejectsTexts(Protocol):
    """A source that has a judge of its own of what is a caption, as a grammar's parser is one. Most have none."""

    def is_rejected(self, text: str) -> bool | None:
        """Whether `text` cannot be read as a caption of this source; None if the source cannot tell."""
        ...


def is_rejected(source: DataSource, text: str) -> bool | None:
    """What the source's own judge says of a text; None for a source without one (see `RejectsTexts`)."""
    return source.is_rejected(text) if isinstance(source, RejectsTexts) else None


@runtime_checkable
class Encoded(Protocol):
    """A source that has its pictures as files, wherever they lie."""

    def encoded(self, index: int) -> bytes:
        """The bytes of a picture's file. Raises BadImage if they cannot be read."""
        ...


@runtime_checkable
class Mirrors(Protocol):
    """A source that knows what its records say of a picture that is mirrored left to right."""

    def mirrored(self, record: Record) -> Record | None:
        """The record with captions, texts of regions and metadata of the mirror image; boxes stay as they are.

        None for a picture that must not be mirrored, such as one with drawn letters.
        """
        ...


def picture_size(source: DataSource, index: int) -> tuple[int, int]:
    """Width and height of a picture in pixels; of a file without decoding it. Raises BadImage."""
    if isinstance(source, FileSource) and (image := source.record(index).image) is not None:
        return source.files.size(image)
    height, width = source.image(index).shape[:2]
    return width, height


def picture_file(source: DataSource) -> Callable[[int], bytes] | None:
    """A function from an index to the bytes of the picture's file; None for a source that draws its pictures."""
    if isinstance(source, Encoded):
        return source.encoded
    if isinstance(source, FileSource):
        files = source.files
        return lambda index: files.read(source.record(index).image)
    return None


def clean_captions(captions: list[Caption]) -> list[str]:
    """The cleaned, non-empty texts in order."""
    return [text for caption in captions if (text := clean_text(caption.text))]
