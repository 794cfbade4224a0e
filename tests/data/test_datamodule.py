import functools
import json

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image

from capkit.data.combinations import check_sources
from capkit.data.curricula.shuffle import Shuffle
from capkit.data.datamodule import CaptionDataModule
from capkit.data.features import FeatureWriter
from capkit.data.records import Caption, Record
from capkit.data.sources.folder import Folder
from capkit.data.transforms import ImageTransform
from capkit.errors import UsageError
from capkit.testing.distributed import bare_trainer, run_distributed


class Numbers:
    def __init__(self, size):
        self.size = size
        self.prepared = 0

    def prepare(self):
        self.prepared += 1

    def __len__(self):
        return self.size

    def record(self, index):
        return Record(f"k{index}", None, [Caption(f" caption  {index}"), Caption("")])

    def image(self, index):
        return np.full((2, 2, 3), index, np.uint8)


def data(train=24, val=7, **options) -> CaptionDataModule:
    defaults = {"transform": ImageTransform(2), "batch_size": 4, "eval_batch_size": 2, "max_skipped": 0}
    return CaptionDataModule(train=Numbers(train), val=Numbers(val), **(defaults | options))


class Recorder(pl.LightningModule):
    """Notes the images of each training step, and tells the data module that they were consumed."""

    def __init__(self, save_at=None):
        super().__init__()
        self.save_at = save_at
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.automatic_optimization = False
        self.seen, self.validated = [], []

    def training_step(self, batch, batch_idx):
        self.optimizers().step()
        self.seen.append((self.current_epoch, batch.keys))

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.trainer.datamodule.consumed()
        if self.global_step == self.save_at:
            self.trainer.save_checkpoint(f"{self.trainer.default_root_dir}/last.ckpt")

    def validation_step(self, batch, batch_idx):
        self.validated += batch.keys

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder, **options) -> pl.Trainer:
    return bare_trainer(default_root_dir=folder, **options)


def fit(folder, ckpt_path=None, save_at=None, num_workers=0, **options) -> Recorder:
    module = Recorder(save_at)
    trainer(folder, **options).fit(module, datamodule=data(num_workers=num_workers), ckpt_path=ckpt_path)
    return module


@pytest.mark.filterwarnings("ignore")
def test_lightning_brings_the_epoch_to_the_curriculum(tmp_path):
    module = fit(tmp_path, max_epochs=3)
    epochs = [[keys for e, keys in module.seen if e == epoch] for epoch in range(3)]
    assert all(sorted(k for keys in epoch for k in keys) == sorted(f"k{i}" for i in range(24)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert module.validated == [f"k{i}" for i in range(7)] * 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("step", "num_workers"), [(4, 0), (6, 0), (9, 2)])
def test_lightning_resumes_with_exactly_the_next_batch(tmp_path, step, num_workers):
    options = {"num_workers": num_workers, "max_epochs": -1, "max_steps": 14}
    whole = fit(tmp_path, save_at=step, **options)
    resumed = fit(tmp_path, tmp_path / "last.ckpt", **options)
    assert len(whole.seen) == 14 and resumed.seen == whole.seen[step:]


def test_state_before_the_loader_waits_for_it():
    running = data()
    wanted = [batch.keys for batch in running.train_dataloader()]
    running.consumed(2)
    resumed = data()
    resumed.load_state_dict(json.loads(json.dumps(running.state_dict())))
    assert [batch.keys for batch in resumed.train_dataloader()] == wanted[2:]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_one_long_epoch_resumes_at_its_step(tmp_path, num_workers):
    def run(start, ckpt_path=None):
        module, source = Recorder(save_at=8), data(num_workers=num_workers)
        source.set_steps(start, 14)
        trainer(tmp_path, max_epochs=1, max_steps=14).fit(module, datamodule=source, ckpt_path=ckpt_path)
        return [keys for _, keys in module.seen]

    whole = run(0)
    assert len(whole) == 14 and len({key for keys in whole[6:12] for key in keys}) == 24 and whole[:6] != whole[6:12]
    assert run(8, tmp_path / "last.ckpt") == whole[8:]


@pytest.mark.filterwarnings("ignore")
def test_lightning_predicts_every_image_of_a_split_in_order(tmp_path):
    class Keys(Recorder):
        def predict_step(self, batch, batch_idx):
            return batch.keys

    batches = trainer(tmp_path).predict(Keys(), dataloaders=data().eval_dataloader("val", limit=5))
    assert batches == [["k0", "k1"], ["k2", "k3"], ["k4"]]


def test_training_split_can_be_evaluated_in_order():
    module = data(transform=ImageTransform(2, augment="flip"))
    assert [key for batch in module.eval_dataloader("train") for key in batch.keys] == [f"k{i}" for i in range(24)]
    assert module.steps_per_epoch == 6


def test_curriculum_can_be_replaced():
    module = data(train=21, curriculum=functools.partial(Shuffle, drop_last=True))
    assert module.steps_per_epoch == len(list(module.train_dataloader())) == 5


def test_images_come_by_key():
    assert [image[0, 0, 0] for image in map(data().image_reader("val"), ["k6", "k0", "k6"])] == [6, 0, 6]


def test_records_are_not_read_for_pictures_that_nobody_asks_for(monkeypatch):
    """A run whose metrics look at no picture has a reader all the same."""
    module = data()
    monkeypatch.setattr(type(module.source("val")), "record", lambda self, index: pytest.fail("it was read"))
    module.image_reader("val")


def test_image_that_cannot_be_read_is_a_white_pixel_in_reports(tmp_path):
    Image.new("RGB", (3, 2), (7, 7, 7)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    module = CaptionDataModule(test=Folder(str(tmp_path)), transform=ImageTransform(2))
    good, bad = map(module.image_reader("test"), ["a.png", "b.png"])
    assert good.shape == (2, 3, 3) and bad.tolist() == [[[255, 255, 255]]]


def _keys_of_rank(rank=None, world_size=None):
    module = data(val=7)
    module.attach(rank=rank, world_size=world_size)
    train = [batch.keys for batch in module.train_dataloader()]
    return train, [key for batch in module.val_dataloader() for key in batch.keys]


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.integration)])
def test_two_ranks_share_the_batches_of_one(processes):
    shares = run_distributed(_keys_of_rank, 2) if processes else [_keys_of_rank(0, 2), _keys_of_rank(1, 2)]
    (train_0, val_0), (train_1, val_1) = shares
    whole, val = _keys_of_rank()
    assert [
        [k for pair in zip(a, b, strict=True) for k in pair] for a, b in zip(train_0, train_1, strict=True)
    ] == whole
    assert (val_0, val_1) == (val[::2], val[1::2])


def test_given_rank_and_world_size_replace_the_process_groups():
    module = data()
    module.attach(rank=1, world_size=2)
    assert [key for batch in module.val_dataloader() for key in batch.keys] == ["k1", "k3", "k5"]
    with pytest.raises(UsageError, match=r"batch_size=4 .* multiple of 3"):
        module.attach(rank=0, world_size=3)


def test_captions_come_clean_and_without_images():
    assert list(data(train=3).captions("train")) == ["caption 0", "caption 1", "caption 2"]
    assert data().num_images("train") == 24


def test_what_is_no_source_is_refused():
    with pytest.raises(UsageError, match=r"data\.val: expected a data source.*got an object of type int"):
        check_sources({"train": Numbers(2), "val": 0})


def test_prepare_reaches_sources_that_build_something():
    module = data()
    module.prepare_data()
    assert module.sources["train"].prepared == module.sources["val"].prepared == 1


def test_missing_source_is_named():
    with pytest.raises(UsageError, match=r"no test source, only train, val; add data\.test"):
        data().test_dataloader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected an integer of at least 1"),
        ({"eval_batch_size": 0}, "eval_batch_size: expected an integer of at least 1"),
        ({"captions_per_image": 0}, "captions_per_image: expected an integer of at least 1"),
        ({"max_length": 2}, "max_length: expected an integer of at least 3"),
        ({"num_workers": -1}, "num_workers"),
        (
            {"max_skipped": 2.0},
            "max_skipped: expected a finite number from 0 to 1 or an integer of at least 0, got 2.0",
        ),
        ({"max_skipped": -1}, "max_skipped"),
        ({"max_skipped": float("nan")}, "max_skipped"),
        ({"transform": None}, "transform .* or features=DIR"),
        ({"features": "none"}, "no feature cache"),
    ],
)
def test_wrong_argument_fails_in_the_constructor(options, message):
    with pytest.raises(UsageError, match=message):
        data(**options)


def test_augmenting_cached_features_is_refused(tmp_path):
    with FeatureWriter(tmp_path / "f", ["a"], (1, 1)) as writer:
        writer.write(["a"], np.zeros((1, 1, 1), np.float32))
    with pytest.raises(UsageError, match="cannot be augmented"):
        data(features=str(tmp_path / "f"), transform=ImageTransform(2, augment="flip"))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_hostile_folder_is_read_to_its_end_and_its_losses_listed(tmp_path, num_workers):
    photos = tmp_path / "my photos (1)"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    for number in range(8):
        Image.fromarray(noise).save(photos / f"{number}.jpg")
    Image.fromarray(noise).convert("CMYK").save(photos / "cmyk.jpg")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(photos / "grey16.png")
    Image.new("RGB", (1, 1)).save(photos / "one.png")
    (photos / "empty.png").write_bytes(b"")
    (photos / "cut.jpg").write_bytes((photos / "1.jpg").read_bytes()[:700])
    (photos / "text.gif").write_text("not a picture")
    module = CaptionDataModule(
        predict=Folder(str(photos)),
        transform=ImageTransform(8),
        max_skipped=3,
        num_workers=num_workers,
        eval_batch_size=2,
    )
    module.attach(run_dir=tmp_path / "run")
    keys = [key for batch in module.predict_dataloader() for key in batch.keys]
    assert keys == [*(f"{n}.jpg" for n in range(8)), "cmyk.jpg", "grey16.png", "one.png"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert {row["key"]: row["split"] for row in rows} == dict.fromkeys(["empty.png", "cut.jpg", "text.gif"], "predict")
    module.max_skipped = 2
    with pytest.raises(UsageError, match="3 of 14 predict examples"):
        list(module.predict_dataloader())
