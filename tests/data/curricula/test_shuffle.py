from itertools import islice

import numpy as np
import pytest

from capkit.data.curricula.shuffle import Shuffle
from capkit.errors import UsageError


def shuffle(num_examples: int, batch_size: int = 8, rank: int = 0, world_size: int = 1, **options) -> Shuffle:
    return Shuffle(batch_size, 3, rank, world_size, num_examples, **options)


def test_an_epoch_is_every_example_once_in_full_batches():
    batches = list(shuffle(24))
    assert [len(b) for b in batches] == [8, 8, 8]
    assert sorted(i for b in batches for i in b) == list(range(24))
    assert [i for b in batches for i in b] != list(range(24))


@pytest.mark.parametrize("num_examples", [24, 21, 5])
@pytest.mark.parametrize("drop_last", [False, True])
def test_one_process_of_8_equals_two_of_4_interleaved(num_examples, drop_last):
    if drop_last and num_examples < 8:
        return
    whole = list(shuffle(num_examples, drop_last=drop_last))
    even, odd = (list(shuffle(num_examples, rank=r, world_size=2, drop_last=drop_last)) for r in (0, 1))
    assert len(whole) == len(even) == len(odd)
    assert [np.stack([a, b], 1).ravel().tolist() for a, b in zip(even, odd, strict=True)] == whole


def test_ranks_are_disjoint_and_complete_with_equal_numbers_of_batches():
    shares = [list(shuffle(48, rank=r, world_size=4)) for r in range(4)]
    assert [len(share) for share in shares] == [6] * 4
    assert {len(b) for share in shares for b in share} == {2}
    seen = [i for share in shares for b in share for i in b]
    assert sorted(seen) == list(range(48))


def test_ragged_end_is_filled_from_the_start_or_dropped():
    filled = [i for b in shuffle(21) for i in b]
    assert len(filled) == 24 and sorted(filled[:21]) == list(range(21)) and filled[21:] == filled[:3]
    assert [i for b in shuffle(21, drop_last=True) for i in b] == filled[:16]
    assert (len(shuffle(21)), len(shuffle(21, drop_last=True))) == (3, 2)


def test_fewer_examples_than_the_batch_repeat_in_it():
    (batch,) = shuffle(3)
    assert len(batch) == 8 and set(batch) == {0, 1, 2} and batch[:3] == batch[3:6]


def test_order_depends_on_epoch_and_seed():
    curriculum = shuffle(64)
    first = list(curriculum)
    assert list(curriculum) == first
    curriculum.set_epoch(1)
    second = list(curriculum)
    assert second != first and list(Shuffle(8, 4, 0, 1, 64)) != first
    curriculum.set_epoch(0)
    assert list(curriculum) == first


def test_resume_goes_on_after_the_consumed_batches_with_any_number_of_ranks():
    curriculum = shuffle(80)
    curriculum.set_epoch(2)
    batches = list(curriculum)
    list(islice(curriculum, 7))  # fetched ahead
    curriculum.consumed()
    curriculum.consumed(3)
    resumed = shuffle(80)
    resumed.load_state_dict(curriculum.state_dict())
    assert list(resumed) == batches[4:] and len(resumed) == 10
    parts = [shuffle(80, rank=r, world_size=2) for r in (0, 1)]
    for part in parts:
        part.load_state_dict(curriculum.state_dict())
        part.set_epoch(2)  # Lightning says the epoch again
    assert [a[0] for a in parts[0]] == [b[0] for b in batches[4:]]
    assert [a[0] for a in parts[1]] == [b[1] for b in batches[4:]]
    resumed.set_epoch(3)
    assert len(list(resumed)) == 10


def test_resume_on_other_data_is_refused():
    state = shuffle(80).state_dict()
    with pytest.raises(UsageError, match="num_examples 80 -> 81"):
        shuffle(81).load_state_dict(state)
    with pytest.raises(UsageError, match="batch_size 8 -> 4"):
        shuffle(80, batch_size=4).load_state_dict(state)


def test_batch_size_must_divide_by_the_ranks():
    with pytest.raises(UsageError, match=r"batch_size=10 .* multiple of 4; set data.batch_size=8"):
        shuffle(80, batch_size=10, world_size=4)
    with pytest.raises(UsageError, match="batch_size: expected an integer of at least 1"):
        shuffle(80, batch_size=0)


def test_nothing_to_yield_is_an_error():
    with pytest.raises(UsageError, match="no training examples"):
        shuffle(0)
    with pytest.raises(UsageError, match="batch_size=8 is more than the 7"):
        shuffle(7, drop_last=True)


def test_sampler_is_the_curriculum_itself():
    curriculum = shuffle(8)
    assert curriculum.sampler is curriculum
