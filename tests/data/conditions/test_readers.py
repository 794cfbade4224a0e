"""Values of conditions that captions of the data have, and how training drops them."""

import math

import numpy as np
import pytest
import torch

from capkit.data.conditions.base import ConditionReader
from capkit.data.conditions.readers import READERS, condition_readers
from capkit.data.datamodule import CaptionDataModule
from capkit.data.dataset import Request
from capkit.data.records import Caption, Record
from capkit.data.targets import Target
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError

WORDS = [["a red  circle", "one"], ["a blue square left of it", "\u0007", "two words"]]


class Source:
    def __len__(self):
        return 40

    def record(self, index):
        return Record(f"{index}", captions=[Caption(text) for text in WORDS[index % 2]])

    def image(self, index):
        return np.zeros((8, 8, 3), np.uint8)


def data(**settings):
    transform = ImageTransform(8)
    settings = {"conditions": {"length": "length", "box": "box"}, "captions_per_image": 2, "batch_size": 8} | settings
    return CaptionDataModule(train=Source(), val=Source(), transform=transform, **settings)


def test_readers_follow_the_protocol():
    for kind in READERS.keys() - {"bins"}:  # that one reads a file: test_bins.py
        assert isinstance(condition_readers({"x": kind})["x"], ConditionReader)


def test_length_counts_the_words_that_the_model_sees_and_a_caption_of_the_picture_has_no_box():
    batch = next(iter(data().val_dataloader()))
    lengths = batch.conditions["length"]
    expected = [[float(len(text.split())) for text in texts] for texts in batch.references]
    assert lengths.tolist() == expected and lengths[:2].tolist() == [[3.0, 1.0], [6.0, 2.0]]
    assert batch.conditions["box"].shape == (40, 2, 4) and batch.conditions["box"].isnan().all()


def test_a_region_has_its_box():
    target = Target("the star", Caption("the star"), box=(0.1, 0.2, 0.3, 0.4))
    assert condition_readers({"box": {"kind": "box"}})["box"](Record("a"), target) == (0.1, 0.2, 0.3, 0.4)


def of_training(world_size=1, epoch=0, **settings):
    """Lengths of one epoch by image and caption."""
    found = {}
    for rank in range(world_size):
        module = data(**settings)
        module.attach(rank=rank, world_size=world_size)
        loader = module.train_dataloader()
        for batch in loader:
            found |= dict(zip(batch.keys, batch.conditions["length"].tolist(), strict=True))
    return found


@pytest.mark.parametrize("captions_per_image", [1, 2])
def test_dropped_values_are_the_same_on_one_and_two_processes(captions_per_image):
    one, two = (
        of_training(world_size, condition_dropout=0.5, captions_per_image=captions_per_image) for world_size in (1, 2)
    )
    assert sorted(map(str, one.items())) == sorted(map(str, two.items()))  # NaN differs from itself
    dropped = [math.isnan(value) for values in one.values() for value in values]
    assert 0.3 < sum(dropped) / len(dropped) < 0.7
    if captions_per_image == 2:
        assert any(math.isnan(first) != math.isnan(second) for first, second in one.values())


def test_dropped_values_differ_between_names_and_epochs():
    module = data(conditions={"length": "length", "words": "length"}, condition_dropout=0.5)
    dataset = module.train_dataloader().dataset
    first, second = (dataset[Request(epoch, list(range(8)))].batch.conditions for epoch in (0, 1))
    assert not torch.equal(first["length"].isnan(), first["words"].isnan())
    assert not torch.equal(first["length"].isnan(), second["length"].isnan())


def test_validation_drops_nothing_and_dropout_one_everything():
    module = data(condition_dropout=1.0)
    assert next(iter(module.val_dataloader())).conditions["length"].isfinite().all()
    assert next(iter(module.train_dataloader())).conditions["length"].isnan().all()


def test_data_without_conditions_gives_none():
    assert next(iter(data(conditions=None).val_dataloader())).conditions == {}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("lengths", "data.conditions.x: expected a kind (length, box, bins), got lengths; did you mean 'length'"),
        ({"kind": "length", "longest": 3}, "data.conditions.x: length takes nothing, got 'longest'"),
    ],
)
def test_a_wrong_setting_is_refused(setting, said):
    with pytest.raises(UsageError) as error:
        data(conditions={"x": setting})
    assert said in str(error.value)
