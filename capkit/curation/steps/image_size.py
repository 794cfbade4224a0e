"""Image sizes as metadata, for steps that judge pictures by them."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from capkit.curation.base import Records
from capkit.curation.step_bases import ReportingStep
from capkit.data.images import BadImage
from capkit.data.records import Record
from capkit.errors import UsageError


class ImageSize(ReportingStep):
    """Records with `width` and `height` of the picture in pixels as metadata; unreadable pictures are reported.

    Image files are measured without decoding them (`capkit.data.images.image_size`). Sizes that a record states already
    are measured anew: those of web data are often of another version of the picture.
    """

    name = "image_size"
    scope = "record"
    writes_source = ""

    def __init__(self) -> None:
        self._measure: Callable[[str], tuple[int, int]] | None = None
        self.counts = {"measured": 0, "unreadable": 0}

    def attach_sizes(self, measure: Callable[[str], tuple[int, int]]) -> None:
        """`measure` gives the width and height of a record's key, or raises BadImage."""
        self._measure = measure

    def __call__(self, records: Records) -> Iterator[Record]:
        if self._measure is None:
            raise UsageError("image_size: expected a way to measure pictures; call attach_sizes, or run task=curate")
        self.counts = dict.fromkeys(self.counts, 0)
        for record in records():
            try:
                width, height = self._measure(record.key)
            except BadImage as problem:
                self.counts["unreadable"] += 1
                self._fail(record, f"picture: {problem}")
                continue
            self.counts["measured"] += 1
            yield replace(record, metadata={**record.metadata, "width": width, "height": height})
