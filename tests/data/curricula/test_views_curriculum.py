"""Batches of bags of views: each has two views of an object, on all ranks and after a resume the same."""

from collections import Counter

import pytest

from capkit.data.curricula.base import Curriculum, Grouped
from capkit.data.curricula.views import Views
from capkit.errors import UsageError

# 5 views of a, 4 of b, 1 of c, 2 of d, 6 of e: 2 + 2 + 0 + 1 + 3 = 8 bags of two.
NAMES = [*"aaaaa", *"bbbb", "c", *"dd", *"eeeeee"]


def views(batch_size=8, rank=0, world_size=1, names=NAMES, seed=3, **options):
    return Views(batch_size, seed, rank, world_size, len(names), lambda: names, **options)


def epoch(curriculum, number=0):
    curriculum.set_epoch(number)
    return list(curriculum)


def test_bags_are_two_views_of_one_object_and_no_view_comes_twice():
    batches = epoch(views())
    assert [len(batch) for batch in batches] == [8, 8]
    for batch in batches:
        assert all(NAMES[a] == NAMES[b] and a != b for a, b in zip(batch[::2], batch[1::2], strict=True))
    seen = [index for batch in batches for index in batch]
    assert len(set(seen)) == 16 and Counter(NAMES[index] for index in seen) == {"a": 4, "b": 4, "d": 2, "e": 6}


def test_each_epoch_pairs_other_views():
    pairs = [{tuple(sorted(batch[i : i + 2])) for batch in epoch(views(), n) for i in range(0, 8, 2)} for n in range(4)]
    assert pairs[0] == {tuple(sorted(b[i : i + 2])) for b in epoch(views()) for i in range(0, 8, 2)}
    assert len(set.union(*pairs)) > len(pairs[0]) + 5
    assert epoch(views(seed=4)) != epoch(views())


def test_one_process_of_8_equals_two_of_4_interleaved():
    whole = epoch(views(), 1)
    even, odd = (epoch(views(rank=rank, world_size=2), 1) for rank in (0, 1))
    assert [[i for pair in zip(a, b, strict=True) for i in pair] for a, b in zip(even, odd, strict=True)] == whole


def test_it_goes_on_where_it_stopped():
    whole = epoch(views(batch_size=4), 2)
    first = views(batch_size=4)
    first.set_epoch(2)
    first.consumed(3)
    again = views(batch_size=4)
    again.load_state_dict(first.state_dict())
    assert list(again) == whole[3:] and len(again) == 4
    assert again.place(9) == (2, 1) and again.num_steps(1.5) == 6
    with pytest.raises(UsageError, match="does not fit"):
        views(batch_size=4, names=NAMES[::-1]).load_state_dict(first.state_dict())
    with pytest.raises(UsageError, match="num_views 2 -> 3"):
        views(batch_size=6, num_views=3).load_state_dict({**first.state_dict(), "batch_size": 6})


def test_bag_ids_are_equal_for_bag_mates_on_all_ranks():
    even, odd = views(rank=0, world_size=2), views(rank=1, world_size=2)
    for a, b in zip(epoch(even, 1), epoch(odd, 1), strict=True):
        ids = even.bag_ids(a)
        assert ids == odd.bag_ids(b) and len(set(ids)) == 4
    assert even.bag_ids([9]) == [-1]  # c has one view


def test_it_is_a_curriculum_and_says_what_it_leaves_out():
    curriculum = views()
    assert isinstance(curriculum, Curriculum) and isinstance(curriculum, Grouped)
    assert curriculum.sampler is curriculum and curriculum.bag_size(7) == 2
    assert curriculum.describe() == {
        "num_views": 2, "objects": 4, "bags": 8, "batches_per_epoch": 2, "images_of_too_few_views": 1,
    }  # fmt: skip


def test_bags_of_three_leave_the_rest_of_an_object_out_of_an_epoch():
    batches = epoch(views(batch_size=7, num_views=3))  # a 1, b 1, e 2: two batches of two bags
    assert [len(batch) for batch in batches] == [6, 6]
    assert Counter(NAMES[i] for batch in batches for i in batch) == {"a": 3, "b": 3, "e": 6}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"names": ["a", "a", None]}, "got none in the training record 2 of 3"),
        ({"names": ["a", "b", "b"], "num_views": 3}, "got 2 objects with at most 2; lower curriculum.num_views"),
        ({"batch_size": 2}, "of two objects or more, and there are 8 bags; set data.batch_size from 4 to 16"),
        ({"batch_size": 32}, "set data.batch_size from 4 to 16"),
        ({"num_views": 1}, "num_views"),
    ],
)
def test_what_does_not_fill_a_batch_is_refused(options, problem):
    with pytest.raises(UsageError, match=problem):
        views(**options)
