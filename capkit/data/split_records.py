"""The splits of a data module, read without loading batches: records, texts, and pictures by key."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import UInt8

from capkit.data.features import FeatureStore
from capkit.data.images import BadImage
from capkit.data.placement import Box
from capkit.data.records import Record
from capkit.data.sources.base import DataSource, prepare_source
from capkit.data.targets import CaptionsOf, texts_of
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError


class Splits:
    """What a data module knows of its sources; its constructor sets the attributes."""

    sources: dict[str, DataSource | None]
    captions_of: CaptionsOf
    features: FeatureStore | None
    transform: ImageTransform | None
    _keys: dict[str, list[str]]

    def prepare_data(self) -> None:
        """Build the caches of sources. Lightning calls this on one process per node while the others wait."""
        for source in self.sources.values():
            prepare_source(source)

    def source(self, split: str) -> DataSource:
        source = self.sources.get(split)
        if source is None:
            others = ", ".join(name for name, other in self.sources.items() if other is not None) or "none"
            raise UsageError(
                f"the data config has no {split} source, only {others}; add data.{split} (docs/data.md shows sources)"
            )
        return source

    def num_images(self, split: str) -> int:
        return len(self.source(split))

    @property
    def num_examples(self) -> int:
        """How many examples an epoch has."""
        return self.num_images("train")

    @property
    def has_validation(self) -> bool:
        return self.sources["val"] is not None

    def texts(self, record: Record) -> list[str]:
        """The cleaned texts of a record that are learned: its captions, or what `captions_of` says."""
        return texts_of(record, self.captions_of)

    def captions(self, split: str) -> Iterator[str]:
        """Iterate over all texts of a split without reading images, e.g. to build a vocabulary."""
        source = self.source(split)
        for index in range(len(source)):
            yield from self.texts(source.record(index))

    def prompts(self, split: str) -> Iterator[str]:
        """Iterate over all prompts that captions of a split answer, e.g. to build a vocabulary."""
        source = self.source(split)
        for index in range(len(source)):
            yield from (caption.prompt for caption in source.record(index).captions if caption.prompt is not None)

    def image_reader(self, split: str) -> Callable[[str], UInt8[np.ndarray, "H W 3"]]:
        """Return a function from a record's key to its untransformed picture, for reports and metrics.

        `KEY#NUMBER`, the key of a region's row, gives the picture that the region is of. It returns one white pixel for
        a picture that cannot be read, since cached features may outlive the file.
        """
        source = self.source(split)
        places: dict[str, int] = {}

        def read(key: str) -> UInt8[np.ndarray, "H W 3"]:
            if not places:  # only where a picture is asked for: it reads every record
                places.update({source.record(i).key: i for i in range(len(source))})
            of_region = self.captions_of == "regions" and key not in places
            return _image_or_white(source, places[key.rpartition("#")[0] if of_region else key])

        return read

    def region_boxes(self, split: str) -> Callable[[str], list[tuple[Box, str]]]:
        """Return a function from a row's key to the boxes that its features are of, each with its region's first text.

        There are none unless the features are of the records' own boxes (`capkit prepare boxes=true`).
        """
        if self.features is None or "boxes" not in self.features.about:
            return lambda key: []
        source = self.source(split)
        places: dict[str, int] = {}

        def boxes(key: str) -> list[tuple[Box, str]]:
            if not places:
                places.update({source.record(i).key: i for i in range(len(source))})
            found: dict[Box, str] = {}
            place = places[key if key in places else key.rpartition("#")[0]]  # of a region's row: its picture's
            for region in source.record(place).regions:
                found.setdefault(region.box, region.text)
            return list(found.items())

        return boxes

    def in_picture(self, box: Box, height: int, width: int) -> Box:
        """Where a box of the square that a model sees lies in a picture of this size, both as shares.

        The same box without a transform, as of cached features.
        """
        return box if self.transform is None else self.transform.placement(height, width).back(box)

    def keys(self, split: str) -> list[str]:
        """The keys of all images of a split, in order."""
        if split not in self._keys:
            source = self.source(split)
            self._keys[split] = [source.record(index).key for index in range(len(source))]
        return self._keys[split]


def _image_or_white(source: DataSource, index: int) -> UInt8[np.ndarray, "H W 3"]:
    try:
        return source.image(index)
    except BadImage:
        return np.full((1, 1, 3), 255, np.uint8)
