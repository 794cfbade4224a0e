from itertools import islice

import numpy as np
import pytest
from bag_folders import bag_folder, keys

from capkit.data.curricula.bags import Bags
from capkit.data.curricula.base import Curriculum, Grouped
from capkit.data.curricula.single_epoch import Steps
from capkit.errors import UsageError

GROWING = {1: "hard-2", 3: "hard-3", 4: "hard-5"}


@pytest.fixture
def bags(tmp_path):
    folder = bag_folder(tmp_path / "bags")

    def make(stages=None, batch_size=16, rank=0, world_size=1, seed=3, num_examples=60, **options):
        return Bags(
            folder, stages or GROWING, batch_size, seed, rank, world_size, num_examples, lambda: keys(60), **options
        )

    return make


def groups(batch, size):
    return [tuple(batch[start : start + size]) for start in range(0, len(batch), size)]


def test_it_is_a_curriculum_of_groups(bags):
    assert isinstance(bags(), Curriculum) and isinstance(bags(), Grouped) and bags().sampler is not None


@pytest.mark.parametrize(("size", "images", "batches"), [(2, 16, 3), (3, 15, 4), (5, 15, 4)])
def test_a_batch_is_as_many_whole_bags_as_fit(bags, size, images, batches):
    # 16 // 2 = 8 bags, 16 // 3 = 5 bags, 16 // 5 = 3 bags; of 60 // size bags, 30 // 8 = 3, 20 // 5 = 4, 12 // 3 = 4
    curriculum = bags({1: f"hard-{size}"})
    found = list(curriculum)
    assert [len(batch) for batch in found] == [images] * batches and len(curriculum) == batches
    whole = {tuple(range(start, start + size)) for start in range(0, 60, size)}
    chosen = [group for batch in found for group in groups(batch, size)]
    assert set(chosen) <= whole and len(set(chosen)) == len(chosen), "each image once at most"


def test_each_epoch_has_its_own_order_and_leaves_out_others(bags):
    curriculum = bags({1: "hard-2"})
    epochs = []
    for number in range(2):
        curriculum.set_epoch(number)
        epochs.append([image for batch in curriculum for image in batch])
    assert epochs[0] != epochs[1] and set(epochs[0]) != set(epochs[1])
    assert [image for batch in bags({1: "hard-2"}, seed=4) for image in batch] != epochs[0]


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_ranks_share_each_global_batch_disjoint_complete_with_equal_numbers_of_batches(bags, world_size):
    for epoch in range(5):
        whole = bags()
        shares = [bags(rank=rank, world_size=world_size) for rank in range(world_size)]
        for curriculum in (whole, *shares):
            curriculum.seek(epoch, 0)
        parts = [list(share) for share in shares]
        assert {len(part) for part in parts} == {len(list(whole))}
        for number, batch in enumerate(whole):
            ours = [part[number] for part in parts]
            assert sorted(image for share in ours for image in share) == sorted(batch)
            assert max(map(len, ours)) - min(map(len, ours)) <= 1 and min(map(len, ours)) > 0
            assert [batch[rank::world_size] for rank in range(world_size)] == ours


@pytest.mark.parametrize(("by", "stages"), [("epoch", GROWING), ("step", {5: "hard-2", 12: "hard-3", 13: "hard-5"})])
def test_the_place_follows_from_the_step_alone(bags, by, stages):
    whole = [(batch, epoch) for batch, epoch in steps(bags(stages, by=by), 0, 25)]
    sizes = [len(batch) for batch, _ in whole]
    assert set(sizes) == {16, 15} and whole[-1][1] > 3
    for start in range(26):
        assert list(steps(bags(stages, by=by), start, 25)) == whole[start:]


def steps(curriculum, start, total):
    found = Steps(curriculum, start, total)
    for batch in found:
        yield batch, found.epoch


def test_by_steps_the_size_changes_at_its_step(bags):
    found = [len(batch) for batch, _ in steps(bags({4: "hard-2", 6: "hard-3"}, by="step", batch_size=20), 0, 9)]
    assert found == [20] * 4 + [18] * 5  # 10 bags of 2, then 6 of 3


def test_state_says_the_place_and_is_refused_for_other_bags_or_another_schedule(bags, tmp_path):
    curriculum = bags()
    curriculum.seek(2, 0)
    batches = list(curriculum)
    list(islice(curriculum, 3))  # fetched ahead
    curriculum.consumed(2)
    resumed = bags(rank=1, world_size=2)
    resumed.load_state_dict(curriculum.state_dict())
    assert list(resumed) == [batch[1::2] for batch in batches[2:]]
    for other, message in (
        (bags({1: "hard-2"}), "stages"), (bags(seed=4), "seed 3 -> 4"), (bags(batch_size=18), "batch_size 16 -> 18"),
        (bags(by="step"), "until step 1"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            other.load_state_dict(curriculum.state_dict())
    bag_folder(tmp_path / "bags", sizes=(2, 3, 5, 6))  # written again: the same lists
    bags().load_state_dict(curriculum.state_dict())


def test_mates_share_a_number_over_ranks_and_an_image_in_no_bag_has_none(bags):
    ranks = [bags({1: "hard-5"}, rank=rank, world_size=2) for rank in (0, 1)]
    for first, second in zip(*ranks, strict=True):
        found = ranks[0].bag_ids(first) + ranks[1].bag_ids(second)
        assert found == [image // 5 for image in first + second]
    assert bags({1: "hard-5"}).bag_ids([59, 0]) == [11, 0]
    growing = bags()
    assert growing.bag_ids([4]) == [2]
    growing.seek(3, 0)
    assert growing.bag_ids([4, 5]) == [0, 1]


def test_what_is_left_out_is_reported(tmp_path):
    folder = bag_folder(tmp_path / "uneven", num_images=61, sizes=(3,))
    curriculum = Bags(folder, {1: "hard-3"}, 10, 0, 0, 1, 61, lambda: keys(61))
    told = curriculum.describe()
    # 20 bags of 3 hold 60 of 61 images; batches of 10 // 3 = 3 bags: 6 of them, and 2 bags (6 images) over
    assert told["lists"]["hard-3"] == {
        "hash": curriculum.state_dict()["bags"]["hard-3"], "bag_size": 3, "images_per_batch": 9,
        "batches_per_epoch": 6, "images_in_no_bag": 1, "images_left_over": 6,
    }  # fmt: skip
    assert told["stages"] == ["until epoch 1: hard-3"]
    assert len({image for batch in curriculum for image in batch}) == 61 - 1 - 6
    assert curriculum.bag_ids([60]) == [-1]


def test_epochs_count_their_own_steps(bags):
    curriculum = bags()  # 3 batches of hard-2, twice 4 of hard-3, then 4 of hard-5
    assert [curriculum.num_steps(epochs) for epochs in (0, 1, 2, 3, 4)] == [0, 3, 7, 11, 15]
    assert curriculum.num_steps(1.5) == 5


def test_what_cannot_work_is_refused(bags, tmp_path):
    for arguments, message in (
        ({"batch_size": 4}, "batch_size=4 has no room for a bag of 5"),
        ({"batch_size": 8, "world_size": 8, "stages": {1: "hard-5"}}, "with 5 images, fewer than the 8 processes"),
        ({"batch_size": 62, "stages": {1: "hard-2"}}, "hard-2 has 30 bags, but a batch of batch_size=62 needs 31"),
        ({"batch_size": 15, "world_size": 2}, "must be a multiple of 2"),
        ({"stages": {1: "hard-4"}}, "no list 'hard-4'"),
        ({"stages": {1: "five"}}, "NEIGHBORHOOD-SIZE"),
    ):
        with pytest.raises(UsageError, match=message):
            bags(**arguments)
    other = bag_folder(tmp_path / "test", split="test")
    with pytest.raises(UsageError, match="bags of the test split"):
        Bags(other, GROWING, 16, 0, 0, 1, 60, lambda: keys(60))
    with pytest.raises(UsageError, match="keys differ"):
        Bags(bag_folder(tmp_path / "bags"), GROWING, 16, 0, 0, 1, 60, lambda: [f"test-{i}" for i in range(60)])


def test_batches_do_not_depend_on_numpys_global_state(bags):
    np.random.seed(0)
    first = list(bags())
    np.random.seed(1)
    assert list(bags()) == first
