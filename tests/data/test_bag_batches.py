"""Batches of bags through the data module: the curriculum, its bags' numbers, places and ranks."""

import functools
import json

import numpy as np
import pytest

from capkit.data.curricula.bag_files import hash_of_keys, write_bags
from capkit.data.curricula.bags import Bags
from capkit.data.datamodule import CaptionDataModule
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.testing.distributed import run_distributed

KEYS = [f"k{i}" for i in range(40)]


class Source:
    def __init__(self, bad=()):
        self.bad = bad

    def __len__(self):
        return len(KEYS)

    def record(self, index):
        return Record(KEYS[index], None, [Caption(f"caption {index}")])

    def image(self, index):
        if index in self.bad:
            raise BadImage("torn")
        return np.full((2, 2, 3), index, np.uint8)


@pytest.fixture
def folder(tmp_path):
    lists = {f"hard-{size}": [KEYS[start : start + size] for start in range(0, 40, size)] for size in (2, 4)}
    about = {"split": "train", "num_keys": 40, "keys_hash": hash_of_keys(KEYS), "lists": {name: {} for name in lists}}
    write_bags(tmp_path / "bags", lists, about)
    return str(tmp_path / "bags")


def data(folder, bad=(), stages=None, **options):
    curriculum = functools.partial(Bags, folder=folder, stages=stages or {1: "hard-2", 2: "hard-4"})
    defaults = {"transform": ImageTransform(2), "batch_size": 10, "max_skipped": 1.0, "curriculum": curriculum}
    return CaptionDataModule(train=Source(bad), val=Source(), **(defaults | options))


def batches_of(module, start=0, total=9):
    module.set_steps(start, total)
    return [(batch.keys, batch.bag.tolist()) for batch in module.train_dataloader()]


def test_epochs_of_unequal_length_are_counted(folder):
    module = data(folder)  # 20 bags of 2, 5 a batch: 4 batches; 10 bags of 4, 2 a batch: 5 batches
    assert (module.steps_per_epoch, module.num_steps(2), module.num_steps(3)) == (4, 9, 14)
    assert [len(keys) for keys, _ in batches_of(module)] == [10] * 4 + [8] * 5


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_batch_says_each_images_bag(folder, num_workers):
    for step, (keys, bags) in enumerate(batches_of(data(folder, num_workers=num_workers))):
        size = 2 if step < 4 else 4
        assert bags == [int(key[1:]) // size for key in keys]


def test_what_takes_the_place_of_a_torn_picture_is_no_mate_and_nobody_else_changes(folder):
    whole, torn = batches_of(data(folder), total=4), batches_of(data(folder, bad=[6]), total=4)
    assert sum(bags.count(-1) for _, bags in torn) == 1
    for (keys, bags), (others, other_bags) in zip(whole, torn, strict=True):
        for key, bag, other, other_bag in zip(keys, bags, others, other_bags, strict=True):
            assert (other, other_bag) == (key, bag) if key != "k6" else (other != "k6" and other_bag == -1)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("start", [2, 4, 6])
def test_a_run_goes_on_in_the_middle_of_an_epoch_with_exactly_the_next_batches(folder, start, num_workers):
    whole = batches_of(data(folder, num_workers=num_workers), total=16)
    assert batches_of(data(folder, num_workers=num_workers), start, 16) == whole[start:]


def test_a_checkpoint_of_other_bags_is_refused(folder):
    module = data(folder)
    batches_of(module)
    other = data(folder, stages={1: "hard-4"})
    other.load_state_dict(json.loads(json.dumps(module.state_dict())))
    with pytest.raises(UsageError, match=r"position in the data does not fit \(stages"):
        other.train_dataloader()


def test_the_run_folder_gets_the_hash_of_the_bags_and_what_is_left_out(folder, tmp_path):
    module = data(folder, batch_size=12)
    module.attach(run_dir=tmp_path / "run")
    module.train_dataloader()
    told = json.loads((tmp_path / "run" / "curriculum.json").read_text())
    about = json.loads((tmp_path / "bags" / "bags.json").read_text())
    assert {name: entry["hash"] for name, entry in told["lists"].items()} == {
        name: entry["hash"] for name, entry in about["lists"].items()
    }
    assert told["lists"]["hard-4"]["images_left_over"] == 4, "ten bags, three a batch"


def test_plain_shuffling_gives_no_bags_and_leaves_no_file(folder, tmp_path):
    module = data(folder, curriculum=None)
    module.attach(run_dir=tmp_path / "run")
    assert all(batch.bag is None for batch in module.train_dataloader())
    assert not (tmp_path / "run" / "curriculum.json").exists()


def test_bags_stay_out_of_evaluation(folder):
    module = data(folder)
    module.train_dataloader()
    assert all(batch.bag is None for batch in module.val_dataloader())


def batches_of_rank(folder, batch_size):
    return batches_of(data(folder, batch_size=batch_size))


@pytest.mark.integration
@pytest.mark.parametrize("batch_size", [10, 6])  # 6: one bag of 4, and of 2 three
def test_two_processes_share_the_batches_of_one(folder, batch_size):
    shares = run_distributed(batches_of_rank, 2, folder, batch_size)
    whole = batches_of_rank(folder, batch_size)
    assert [len(share) for share in shares] == [9, 9]
    for number, (keys, bags) in enumerate(whole):
        for rank in (0, 1):
            assert shares[rank][number] == (keys[rank::2], bags[rank::2])


def by_level(folder, num_workers, state=None, start=0, total=12):
    """A loop that tells the curriculum of each step; the level is reached at the second look, after step 6."""
    curriculum = functools.partial(Bags, by="level", levels=[0.5], window=3, folder=folder, stages=["hard-2", "hard-4"])
    module = data(folder, num_workers=num_workers, curriculum=curriculum)
    if state is not None:
        module.load_state_dict(state)
    module.set_steps(start, total)
    batches = []
    for step, batch in enumerate(module.train_dataloader(), start + 1):
        batches.append((batch.keys, batch.bag.tolist()))
        module.curriculum.observe(step, step / 10)
    return batches, module.state_dict()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_fetch_no_batch_before_its_bags_are_known(folder, num_workers):
    batches, _ = by_level(folder, num_workers)
    assert [len(keys) for keys, _ in batches] == [10] * 6 + [8] * 6
    for step, (keys, bags) in enumerate(batches):
        assert bags == [int(key[1:]) // (2 if step < 6 else 4) for key in keys]
    _, state = by_level(folder, num_workers, total=8)
    assert by_level(folder, num_workers, json.loads(json.dumps(state)), start=8)[0] == batches[8:]


def test_a_loop_that_does_not_tell_how_it_goes_is_told_so(folder):
    curriculum = functools.partial(Bags, by="level", levels=[0.5], window=3, folder=folder, stages=["hard-2", "hard-4"])
    with pytest.raises(UsageError, match=r"needs reward/total of every step; expected \d+ observed steps, got 0"):
        batches_of(data(folder, curriculum=curriculum))
