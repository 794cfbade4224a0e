"""Texts of an image for a training step: one whole, the others sentences of long captions."""

from collections import Counter

import pytest

from capkit.data.images import BadImage
from capkit.data.records import Caption
from capkit.data.sub_captions import SubCaptions
from capkit.data.targets import Target
from capkit.errors import UsageError

LONG = "A dog sits. It has 3.5 bones. The sky is red."
TARGETS = [
    Target(text, Caption(text, source), number)
    for number, (source, text) in enumerate(
        [("raw", "dog pic"), ("shortIB", "A dog."), ("longIB", LONG), ("other", "Nothing of it. At all.")]
    )
]
ALL = ["A dog.", "A dog sits.", "It has 3.5 bones.", "The sky is red."]


def drawn(count, epoch=0, sources=("short", "long"), always="raw", targets=TARGETS):
    return [target.text for target in SubCaptions(count, sources, always)(targets, (0, epoch, 5))]


def test_the_pool_is_every_sentence_with_its_origin():
    pool = SubCaptions(8, ["short", "long"], "raw").pool(TARGETS)
    assert [target.text for target in pool] == ALL
    assert [target.caption.source for target in pool] == ["shortIB/0", "longIB/0", "longIB/1", "longIB/2"]
    assert [target.number for target in pool] == [1, 2, 2, 2]


def test_the_caption_that_is_always_there_comes_first_and_nothing_twice_while_there_is_enough():
    for epoch in range(20):
        first, *others = drawn(5, epoch)
        assert first == "dog pic" and sorted(others) == sorted(ALL)
        assert len(set(drawn(3, epoch)[1:])) == 2


def test_every_sentence_is_drawn_equally_often_the_last_one_too():
    counts = Counter(text for epoch in range(2000) for text in drawn(2, epoch)[1:])
    assert set(counts) == set(ALL)
    assert all(abs(count - 500) < 4 * (2000 * 0.25 * 0.75) ** 0.5 for count in counts.values())  # four deviations


def test_where_there_are_too_few_each_comes_again_before_one_comes_a_third_time():
    counts = Counter(drawn(8)[1:])
    assert sum(counts.values()) == 7 and set(counts) == set(ALL) and max(counts.values()) == 2


def test_a_draw_depends_on_seed_epoch_and_image_alone():
    assert drawn(4, epoch=3) == drawn(4, epoch=3)
    assert len({tuple(drawn(4, epoch)) for epoch in range(20)}) > 5


def test_without_one_kind_all_texts_are_of_the_other():
    assert drawn(3, targets=TARGETS[:1]) == ["dog pic"] * 3
    assert set(drawn(4, targets=TARGETS[1:])) == set(ALL)
    assert set(drawn(4, always=None)) == set(ALL)
    with pytest.raises(BadImage, match=r"no caption by raw or short\.\.\. or long\.\.\., but by other"):
        drawn(3, targets=TARGETS[3:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 8, "form": ["long"]}, "unknown key 'form'; did you mean 'from'"),
        ({"count": 0, "from": ["long"]}, "count: expected a whole number from 1 on, got 0"),
        ({"from": ["long"]}, "count: expected a whole number"),
        ({"count": 8, "from": "long"}, r"from: expected names of sources .* give e.g. from=\[long\]"),
        ({"count": 8, "from": ["long"], "always": 3}, "always: expected the name of a source or null, got 3"),
    ],
)
def test_what_the_setting_must_be(settings, message):
    with pytest.raises(UsageError, match=message):
        SubCaptions.of(settings)
