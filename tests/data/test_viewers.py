"""Pictures for a reward's encoder come with the batch, read by the loader's workers, each once."""

import numpy as np
import pytest
import torch

from capkit.data.datamodule import CaptionDataModule
from capkit.data.records import Caption, Record
from capkit.data.transforms import ImageTransform
from capkit.types import Pictures


class Numbers:
    def __len__(self):
        return 8

    def record(self, index):
        return Record(f"k{index}", None, [Caption(f"caption {index}")])

    def image(self, index):
        return np.full((2, 2, 3), index, np.uint8)


class Viewer:
    """Wants the pictures of a batch, and the one after the last."""

    def __init__(self):
        self.seen = {}

    def unseen(self, keys):
        return [key for key in [*keys, "extra"] if key not in self.seen]

    def preprocess(self, keys):
        numbers = [100 if key == "extra" else int(key[1:]) for key in keys]
        return Pictures(keys, keys, torch.tensor(numbers).float()[:, None, None, None].expand(-1, 3, 1, 1))

    def look(self, pictures):
        assert not self.seen.keys() & set(pictures.asked)
        self.seen |= zip(pictures.found, pictures.pixels[:, 0, 0, 0].tolist(), strict=True)


def data(viewers, **options):
    module = CaptionDataModule(train=Numbers(), val=Numbers(), transform=ImageTransform(2), batch_size=4, **options)
    module.show_to(viewers)
    return module


def two_epochs(module, viewer):
    """Keys that came with each batch, looked at as they come."""
    came = []
    loader = module.train_dataloader()
    for _ in range(2):
        for batch in loader:
            pictures = batch.pictures.get("judge")
            came.append((batch.keys, [] if pictures is None else pictures.asked))
            if pictures is not None:
                viewer.look(pictures)
    loader.close()
    return came


def test_a_picture_comes_with_its_first_batch_only():
    viewer = Viewer()
    came = two_epochs(data({"judge": viewer}), viewer)
    assert [asked for _, asked in came[2:]] == [[], []]
    assert came[0][1] == [*came[0][0], "extra"] and came[1][1] == came[1][0]
    assert viewer.seen == {"extra": 100.0, **{f"k{number}": float(number) for number in range(8)}}


@pytest.mark.integration
def test_workers_read_them():
    class Refusing(Viewer):
        def preprocess(self, keys):
            assert torch.utils.data.get_worker_info() is not None
            return super().preprocess(keys)

    viewer = Refusing()
    module = data({"judge": viewer}, num_workers=1)
    loader = module.train_dataloader()
    for batch in loader:  # the second batch is requested before the first is looked at: "extra" comes with it again
        viewer.seen |= dict.fromkeys(batch.pictures["judge"].found)
    loader.close()
    assert len(viewer.seen) == 9


def test_evaluation_and_runs_without_viewers_ask_for_nothing():
    assert all(not batch.pictures for batch in data({"judge": Viewer()}).val_dataloader())
    assert all(not batch.pictures for batch in data({}).train_dataloader())


def test_parts_of_a_batch_have_none_and_moving_it_moves_them():
    viewer = Viewer()
    batch = next(iter(data({"judge": viewer}).train_dataloader()))
    assert batch[:2].pictures == {} and batch.select([1]).pictures == {}
    moved = batch.to("meta").pictures["judge"]
    assert moved.pixels.device.type == "meta" and moved.asked == batch.pictures["judge"].asked
