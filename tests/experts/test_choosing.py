"""Floors, duplicates and owners of findings, worked by hand."""

import pytest

from capkit.experts.base import Detection, Finding
from capkit.experts.choosing import by_object, confident, overlap, without_duplicates


def found(text, box, score=1.0, kind="object", expert=""):
    return Finding(kind, text, None if box is None else tuple(map(float, box)), score, expert)


def test_overlap_of_two_boxes_by_hand():
    """[0, .4] x [0, .4] and [.2, .6] x [0, .4] share .2 x .4 = .08 of .16 + .16 - .08 = .24: a third."""
    box, point = (0.0, 0.0, 0.4, 0.4), (0.1, 0.1, 0.1, 0.1)
    assert overlap(box, (0.2, 0.0, 0.6, 0.4)) == pytest.approx(1 / 3)
    assert overlap(box, box) == 1
    assert overlap(box, (0.4, 0.0, 0.8, 0.4)) == 0 == overlap(point, point)


def test_a_floor_keeps_its_own_value():
    items = [found("a", None, 0.3), found("b", None, 0.29999), found("c", None, 0.9)]
    assert [item.text for item in confident(items, 0.3)] == ["a", "c"]


def test_of_two_boxes_of_one_name_that_overlap_the_better_stays_in_its_place():
    """IoU of the two dogs is a third (above): above .3 and below .34."""
    dog, better, cat = (
        found("dog", (0, 0, 0.4, 0.4), 0.6),
        found("Dog", (0.2, 0, 0.6, 0.4), 0.7),
        found("cat", (0, 0, 0.4, 0.4), 0.1),
    )
    assert without_duplicates([dog, cat, better], 0.3) == [cat, better]
    assert without_duplicates([dog, cat, better], 0.34) == [dog, cat, better]
    text = found("dog", (0, 0, 0.4, 0.4), 0.9, "text")
    assert without_duplicates([dog, text], 0.0) == [dog, text], "another kind is another thing"


def test_a_chain_of_overlaps_keeps_what_only_the_removed_one_overlapped():
    """a overlaps b and b overlaps c, a not c; b is the least sure, so a and c stay; where b is the surest, it alone."""
    boxes = [(0, 0, 0.4, 1), (0.2, 0, 0.6, 1), (0.4, 0, 0.8, 1)]
    low = [found("x", box, score) for box, score in zip(boxes, (0.8, 0.5, 0.7), strict=True)]
    high = [found("x", box, score) for box, score in zip(boxes, (0.8, 0.9, 0.7), strict=True)]
    assert without_duplicates(low, 0.3) == [low[0], low[2]]
    assert without_duplicates(high, 0.3) == [high[1]]


def test_tags_are_of_the_whole_picture_and_of_equal_scores_the_first_stays():
    tags = [
        found("cat", None, 0.5, "tag", "one"),
        found("dog", None, 0.1, "tag"),
        found("cat", None, 0.5, "tag", "two"),
    ]
    assert [(item.text, item.expert) for item in without_duplicates(tags, 1.0)] == [("cat", "one"), ("dog", "")]


def test_a_text_goes_to_the_smallest_object_that_holds_it_and_an_attribute_to_the_box_it_fits_best():
    """The sign's text sticks out by a quarter of its width: it is still held; one that sticks out by half is not."""
    car, sign = found("car", (0.0, 0.0, 0.8, 0.8)), found("sign", (0.1, 0.1, 0.5, 0.5))
    stop = found("STOP", (0.2, 0.2, 0.4, 0.3), 0.8, "text")
    edge = found("edge", (0.5, 0.6, 0.9, 0.7), 0.8, "text")  # three quarters of it lie in the car
    half = found("half", (0.6, 0.6, 1.0, 0.7), 0.8, "text")
    red, tag = found("red", (0.1, 0.1, 0.5, 0.45), 0.9, "attribute"), found("street", None, 0.4, "tag")
    objects, rest = by_object([car, stop, sign, edge, half, red, tag])
    assert [item.finding for item in objects] == [car, sign]
    assert (objects[0].texts, objects[0].attributes) == ([edge], [])
    assert (objects[1].texts, objects[1].attributes) == ([stop], [red])
    assert rest == [half, tag]


def test_an_attribute_that_lies_on_no_object_stays_alone():
    red = found("red", (0.6, 0.6, 0.9, 0.9), kind="attribute")
    objects, rest = by_object([found("car", (0, 0, 0.5, 0.5)), red])
    assert objects[0].attributes == [] and rest == [red]


def test_the_old_name_of_a_finding_warns_and_makes_one():
    with pytest.warns(FutureWarning, match="Detection"):
        assert Detection("dog", (0.0, 0.0, 1.0, 1.0), 0.5) == Finding("object", "dog", (0.0, 0.0, 1.0, 1.0), 0.5)
