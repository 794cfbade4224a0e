from itertools import islice

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from capkit.data.curricula.shuffle import Shuffle
from capkit.data.dataset import CaptionDataset
from capkit.data.images import BadImage
from capkit.data.loader import CaptionLoader, InOrder
from capkit.data.records import Caption, Record
from capkit.data.skipped import SkipLog
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError


class Numbers:
    """Image i is filled with i; those in `bad` cannot be read, as a file with broken content cannot."""

    def __init__(self, size=40, bad=()):
        self.size, self.bad = size, set(bad)

    def __len__(self):
        return self.size

    def record(self, index):
        return Record(f"k{index}", f"{index}.png", [Caption("x")])

    def image(self, index):
        if index in self.bad:
            raise BadImage("broken")
        return np.full((2, 2, 3), index, np.uint8)


def loader(batches, bad=(), split="train", max_skipped=0.05, num_workers=0, path=None, size=40):
    dataset = CaptionDataset(Numbers(size, bad), split, ImageTransform(2), None, None, 1, 0, split == "train")
    return CaptionLoader(dataset, batches, SkipLog(path), max_skipped, num_workers)


def keys(batches) -> list[list[str]]:
    return [batch.keys for batch in batches]


def named(indices: list[list[int]]) -> list[list[str]]:
    return [[f"k{i}" for i in batch] for batch in indices]


@pytest.mark.parametrize(("num_examples", "batch_size", "world_size"), [(10, 3, 1), (10, 3, 2), (7, 2, 4), (2, 5, 3)])
def test_in_order_gives_each_example_to_one_rank_once(num_examples, batch_size, world_size):
    shares = [list(InOrder(num_examples, batch_size, rank, world_size)) for rank in range(world_size)]
    for rank, share in enumerate(shares):
        assert [i for batch in share for i in batch] == list(range(rank, num_examples, world_size))
        assert len(share) == len(InOrder(num_examples, batch_size, rank, world_size))
        assert all(1 <= len(batch) <= batch_size for batch in share)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resume_in_the_middle_of_an_epoch_continues_with_the_next_batch(num_workers):
    curriculum = Shuffle(4, 0, 0, 1, 40)
    curriculum.set_epoch(3)
    wanted = named(list(curriculum))
    running = iter(loader(curriculum, num_workers=num_workers))
    seen = []
    for batch in islice(running, 3):
        seen.append(batch.keys)
        curriculum.consumed()
    resumed = Shuffle(4, 0, 0, 1, 40)
    resumed.load_state_dict(curriculum.state_dict())
    assert seen + keys(loader(resumed, num_workers=num_workers)) == wanted


def test_workers_and_no_workers_give_the_same_batches_in_every_epoch():
    curriculum = Shuffle(8, 0, 0, 1, 40)
    alone, helped = loader(curriculum, bad=[3, 5]), loader(curriculum, bad=[3, 5], num_workers=2)
    for epoch in range(3):
        curriculum.set_epoch(epoch)
        pairs = list(zip(alone, helped, strict=True))
        assert len(pairs) == 5 and all(a.keys == b.keys and torch.equal(a.pixels, b.pixels) for a, b in pairs)


def test_loading_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader(Shuffle(8, 0, 0, 1, 40)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_skipped_within_the_budget_are_listed_once_and_batches_stay_full(num_workers, tmp_path):
    curriculum = Shuffle(8, 0, 0, 1, 40)
    batches = loader(curriculum, bad=[3, 5], num_workers=num_workers, path=tmp_path / "skipped.jsonl")
    for epoch in range(2):
        curriculum.set_epoch(epoch)
        assert [len(batch) for batch in batches] == [8] * 5
    lines = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert len(lines) == 2 and '"3.png"' in "".join(lines) and '"5.png"' in "".join(lines)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_skipped_beyond_the_budget_stops_with_a_plain_usage_error(num_workers):
    with pytest.raises(UsageError, match=r"^3 of 40 train examples cannot be used") as caught:
        list(loader(Shuffle(40, 0, 0, 1, 40), bad=[3, 5, 9], num_workers=num_workers))
    assert "Traceback" not in str(caught.value) and "worker" not in str(caught.value)


def test_no_usable_training_example_stops_even_without_a_budget():
    with pytest.raises(UsageError, match="hardly any train example is usable, first reason: broken"):
        list(loader(Shuffle(4, 0, 0, 1, 40), bad=range(40), max_skipped=1.0))


def test_evaluation_comes_in_order_without_the_skipped():
    batches = loader(InOrder(10, 2, 0, 1), bad=[2, 3, 8], split="test", max_skipped=3, size=10)
    assert keys(batches) == named([[0, 1], [4, 5], [6, 7], [9]])
    with pytest.raises(UsageError, match="3 of 10 test examples"):
        list(loader(InOrder(10, 2, 0, 1), bad=[2, 3, 8], split="test", max_skipped=2, size=10))


class Validated(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.hooks = []

    def validation_step(self, batch, batch_idx):
        self.hooks.append(batch.keys)

    def on_validation_epoch_end(self):
        self.hooks.append("end")


@pytest.mark.parametrize("bad", [(), (0, 1)])
def test_a_rank_without_usable_examples_comes_to_the_end_of_a_validation_where_ranks_meet(bad):
    num_examples = len(bad) or 1
    rank = 0 if bad else 1  # of one example, the second of two ranks has none
    batches = InOrder(num_examples, 2, rank, 2 - bool(bad))
    module = Validated()
    trainer = pl.Trainer(logger=False, enable_progress_bar=False, enable_checkpointing=False, accelerator="cpu")
    trainer.validate(module, loader(batches, bad, "val", max_skipped=1.0, size=num_examples), verbose=False)
    assert module.hooks == ["end"]
