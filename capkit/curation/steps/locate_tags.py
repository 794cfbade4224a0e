"""What a picture shows and where: a tagger names it, a detector finds what was named (CAMU, arXiv 2504.17902)."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from capkit.curation.base import Records, batches
from capkit.curation.step_bases import PictureStep
from capkit.data.records import Record, Region
from capkit.errors import UsageError
from capkit.experts.base import Detector, Expert, check_expert
from capkit.utils.ranges import PositiveInt, check_ranges


@check_ranges
class LocateTags(PictureStep):
    """Records with one region for each box that `detector` found of the tags that `tagger` gave, in place of theirs.

    Records whose picture is unreadable are left out; those without any box are kept, without regions. `batch_size`
    pictures are read at a time.
    """

    name = "locate_tags"
    writes_source = ""

    def __init__(self, tagger: Expert | None = None, detector: Detector | None = None, batch_size: PositiveInt = 16):
        if tagger is None or detector is None:
            raise UsageError("locate_tags needs a tagger and a detector; see configs/step/locate_tags.yaml")
        check_expert(tagger, Expert, "locate_tags: tagger")
        check_expert(detector, Detector, "locate_tags: detector")
        self._tagger, self._detector, self._batch_size = tagger, detector, batch_size
        self.counts = {"boxes": 0, "without_boxes": 0}

    def fingerprint_fields(self) -> dict[str, Any]:
        return {"tagger": self._tagger.about(), "detector": self._detector.about()}

    def __call__(self, records: Records) -> Iterator[Record]:
        for batch in batches(records(), self._batch_size):
            seen = self.readable(batch)
            pictures = [picture for _, picture in seen]
            looked = self._tagger.look(pictures) if pictures else []
            names = [list(dict.fromkeys(item.text for item in found)) for found in looked]
            for (record, _), found in zip(seen, self._detector.detect(pictures, names), strict=True):
                self.counts["boxes"] += len(found)
                self.counts["without_boxes"] += not found
                yield replace(record, regions=[Region(item.box, item.text) for item in found if item.box is not None])
