"""What a picture shows and where: a tagger names it, a detector finds what was named (CAMU, arXiv 2504.17902)."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import UInt8

from capkit.curation.base import Failure, Records, batches, ignore_failure, readable
from capkit.data.records import Record, Region
from capkit.errors import UsageError
from capkit.experts.base import Detector, Tagger
from capkit.utils.ranges import PositiveInt, check_ranges


@check_ranges
class LocateTags:
    """Records with one region for each box that `detector` found of the tags that `tagger` gave, in place of theirs.

    Records whose picture is unreadable are left out; those without any box are kept, without regions. `batch_size`
    pictures are read at a time.
    """

    by_record = True

    def __init__(self, tagger: Tagger | None = None, detector: Detector | None = None, batch_size: PositiveInt = 16):
        if tagger is None or detector is None:
            raise UsageError("locate_tags needs a tagger and a detector; see configs/step/locate_tags.yaml")
        self._tagger, self._detector, self._batch_size = tagger, detector, batch_size
        self.counts = {"boxes": 0, "without_boxes": 0}
        self._report: Callable[[Failure], None] = ignore_failure
        self._read: Callable[[str], UInt8[np.ndarray, "H W 3"]] | None = None

    def attach_failures(self, report: Callable[[Failure], None]) -> None:
        self._report = report

    def attach_images(self, read: Callable[[str], UInt8[np.ndarray, "H W 3"]]) -> None:
        """`read` gives the picture of a record's key, or raises BadImage."""
        self._read = read

    def fingerprint_fields(self) -> dict[str, Any]:
        return {"tagger": self._tagger.fingerprint_fields(), "detector": self._detector.fingerprint_fields()}

    def __call__(self, records: Records) -> Iterator[Record]:
        for batch in batches(records(), self._batch_size):
            seen = readable(batch, self._read, "locate_tags", self._report)
            pictures = [picture for _, picture in seen]
            names = self._tagger.tag(pictures) if pictures else []
            for (record, _), found in zip(seen, self._detector.detect(pictures, names), strict=True):
                self.counts["boxes"] += len(found)
                self.counts["without_boxes"] += not found
                yield replace(record, regions=[Region(item.box, item.label) for item in found])
