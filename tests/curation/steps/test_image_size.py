import pytest

from capkit.curation.steps.image_size import ImageSize
from capkit.data.images import BadImage
from capkit.data.records import Record
from capkit.errors import UsageError


def measure(key):
    if key == "torn":
        raise BadImage("empty file (0 bytes)")
    return {"wide": (640, 480), "tall": (480, 640)}[key]


def test_sizes_are_filled_in_and_unreadable_pictures_are_reported():
    step, failures = ImageSize(), []
    step.attach_sizes(measure)
    step.attach_failures(failures.append)
    records = [Record("wide", metadata={"url": "x", "width": 1}), Record("torn"), Record("tall")]
    for _ in range(2):  # each pass counts anew
        found = list(step(lambda: iter(records)))
        assert [record.metadata for record in found] == [
            {"url": "x", "width": 640, "height": 480},
            {"width": 480, "height": 640},
        ]
        assert step.counts == {"measured": 2, "unreadable": 1}
    assert records[0].metadata == {"url": "x", "width": 1}, "the records are not changed in place"
    assert {(failure.key, failure.reason) for failure in failures} == {("torn", "picture: empty file (0 bytes)")}


def test_without_a_way_to_measure_it_says_so():
    with pytest.raises(UsageError, match="call attach_sizes, or run task=curate"):
        list(ImageSize()(lambda: [Record("k")]))
