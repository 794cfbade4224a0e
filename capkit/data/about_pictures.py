"""What a file says of pictures of a data source (preferences, ratings) as records of their own: one an item."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from capkit.data.records import Record
from capkit.data.sources.base import DataSource, picture_file
from capkit.errors import UsageError
from capkit.utils.rng import stable_hash

_NUM_NAMED = 3


@runtime_checkable
class OfPicture(Protocol):
    """Something that is said of the picture `image`, which is its key or its file."""

    @property
    def image(self) -> str: ...


Item = TypeVar("Item", bound=OfPicture)


class AboutPictures(Generic[Item]):
    """One record an item: the picture of its image in `source`, by key or file, with what the item says.

    Raises UsageError for items about pictures that the source, data.`split`, does not have. `what` names the items.
    """

    def __init__(self, source: DataSource, items: Sequence[Item], what: str, split: str = "train") -> None:
        self._source, self.items = source, list(items)
        places = _places(source)
        if strangers := [item.image for item in items if item.image not in places]:
            some = ", ".join(map(repr, dict.fromkeys(strangers[:_NUM_NAMED])))
            raise UsageError(
                f"{what}: expected {what.split()[-1]} about pictures of data.{split}, by their keys or files; "
                f"{len(strangers)} of {len(items)} are about others, such as {some}; give the data that they were "
                "collected on"
            )
        self._places = [places[item.image] for item in items]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def places(self) -> set[int]:
        """The pictures' indices in the source."""
        return set(self._places)

    def record(self, index: int) -> Record:
        return self.as_record(self._source.record(self._places[index]), index, self.items[index])

    @abstractmethod
    def as_record(self, record: Record, number: int, item: Item) -> Record:
        """The picture's record with the captions of item `number`."""

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self._source.image(self._places[index])


class OfFiles(AboutPictures[Item]):
    """The same of a source whose pictures are files, which are read as that source's are."""

    def encoded(self, index: int) -> bytes:
        read = picture_file(self._source)
        assert read is not None
        return read(self._places[index])


def _places(source: DataSource) -> dict[str, int]:
    """The index of each picture, by key and by file; of two with one name the first."""
    places: dict[str, int] = {}
    records = [source.record(index) for index in range(len(source))]
    for names in ([record.key for record in records], [record.image for record in records]):
        for index, name in enumerate(names):
            if name is not None:
                places.setdefault(name, index)
    return places


def held_out(items: Sequence[Item], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """Items to train on and to validate: a share of the pictures, drawn by (seed, picture), with all that is said."""
    is_held = {name: stable_hash(seed, "held out", name) / 2**63 < share for name in {item.image for item in items}}
    return [i for i in items if not is_held[i.image]], [i for i in items if is_held[i.image]]


def refuse_shared(trained: AboutPictures[Item], held: AboutPictures[Item], source: DataSource, what: str) -> None:
    """Raises UsageError where a picture is both trained on and held out."""
    if both := trained.places & held.places:
        key = source.record(min(both)).key
        raise UsageError(
            f"expected held-out {what}s about pictures that are not trained on, got {len(both)} that are, such as "
            f"{key!r}; leave it out of one of the files, or name each picture in one way, by key or by file"
        )
