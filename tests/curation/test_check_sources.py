"""A step that needs captions of an earlier step is told before anything is asked."""

import pytest

from capkit.curation.base import check_sources
from capkit.data.records import Caption, Record
from capkit.errors import UsageError


class Writes:
    def __init__(self, source):
        self.writes_source = source


class Reads(Writes):
    reads_source = ("draft/", "write_drafts")


class Unknown:
    """A step of somebody's own, which does not say what it writes."""


def records(*sources):
    return lambda: iter([Record(str(n), captions=[Caption("a dog", source)]) for n, source in enumerate(sources)])


def never():
    raise AssertionError("the data are not looked at where a step writes what is needed")


@pytest.mark.parametrize("first", [Writes("draft/"), Unknown()])
def test_a_step_before_it_writes_them(first):
    check_sources({"first": first, "reads": Reads("final/")}, never)


def test_the_data_may_have_them_already_whatever_else_they_have():
    check_sources({"reads": Reads(""), "again": Reads("")}, records("human", "draft/v1/tiny"))


@pytest.mark.parametrize(
    ("steps", "fix"),
    [
        ({"reads": Reads("")}, "write_drafts,reads"),
        ({"other": Writes("final/"), "reads": Reads("")}, "other,write_drafts,reads"),
        ({"size": Writes(""), "reads": Reads("draft/")}, "size,write_drafts,reads"),
        ({"reads": Reads(""), "write_drafts": Writes("draft/")}, "write_drafts,reads"),
    ],
)
def test_otherwise_it_is_told_what_to_put_before_it(steps, fix):
    with pytest.raises(UsageError, match=rf"step reads needs captions of source draft/.*step=\[{fix}\]"):
        check_sources(steps, records("human", "final/draft/v1"))
