"""`capkit shard` from the command line, and training on what it wrote."""

import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from capkit.cli import main
from capkit.run.folder import RunFolder

TINY = [
    "debug=tiny", "max_steps=2", "val_every=2", "metric=[]", "controls=0", "data.batch_size=4", "data.num_workers=0",
    "data.captions_per_image=2", "data.transform.augment=[flip,crop]", "model.width=32", "model.num_layers=1",
    "model.image_encoder.channels=[8,8]", "model.image_encoder.blocks=[0,0]", "model.image_encoder.width=32",
    "decoding.max_length=6", "callback.recorder.every_steps=1",
]  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    """Photos of several sizes with captions, one of them cut off."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random, captions = np.random.default_rng(0), {}
    for number in range(16):
        pixels = random.integers(0, 256, (90 + number, 120, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
        captions[f"{number}.jpg"] = [f"photo number {number}", f"the picture {number}"]
    (folder / "3.jpg").write_bytes((folder / "3.jpg").read_bytes()[:900])
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    return [f"data.train.images={folder}", f"data.train.captions={tmp_path / 'captions.json'}", "data.max_skipped=1"]


def losses(words, run):
    assert main([*TINY, *words, f"run_dir={run}"]) == 0
    rows = [row for row in RunFolder(run).rows() if "train/loss" in row or "val/loss" in row]
    return [(row["step"], row.get("train/loss"), row.get("val/loss")) for row in rows]


@pytest.mark.integration
def test_two_steps_on_the_folder_and_on_its_shards_have_equal_losses(tmp_path, photos, capsys):
    """The control, another seed, changes them; so would another order, other captions, crops or pixels."""
    out = tmp_path / "shards"
    assert main(["shard", "data=folder", *photos, f"out={out}", "images_per_shard=5", "num_workers=2"]) == 0
    assert f"capkit data=shards data.train.folder={out}" in capsys.readouterr().out
    shards = ["data=shards", f"data.train.folder={out}", "data.transform.resize=pad", "data.max_skipped=1"]
    wanted = losses(["data=folder", *photos], tmp_path / "a")
    got = losses(shards, tmp_path / "b")
    assert len(wanted) >= 2 and got == wanted
    assert losses([*shards, "seed=1"], tmp_path / "c") != wanted


@pytest.mark.integration
def test_tars_made_elsewhere_are_trained_on_through_their_index(tmp_path, photos, capsys):
    folder = tmp_path / "laion"
    folder.mkdir()
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for number in range(12):
            path = tmp_path / "photos" / f"{number}.jpg"
            (tmp_path / "text.txt").write_text(f"photo number {number}")
            tar.add(path, f"{number:09d}.jpg")
            tar.add(tmp_path / "text.txt", f"{number:09d}.txt")
    words = ["shard", f"tars={folder}", f"out={tmp_path / 'index'}", "val=0.2", "test=0.1", "data.max_skipped=1"]
    assert main(words) == 0 and main(words) == 0
    assert "shards of train 7, val 3, test 2 images" in capsys.readouterr().out
    shards = ["data=shards", f"data.train.folder={tmp_path / 'index'}", "data.max_skipped=1"]
    assert len(losses(shards, tmp_path / "run")) >= 2


def test_wrong_words_are_told_in_one_message(tmp_path, capsys):
    assert main(["shard", f"tars={tmp_path}", f"out={tmp_path / 'x'}"]) == 2
    assert "expected a folder with webdataset tars" in capsys.readouterr().err
    (tmp_path / "a.tar.gz").write_bytes(b"")
    assert main(["shard", f"tars={tmp_path}", f"out={tmp_path / 'x'}"]) == 2
    assert "got compressed ones; unpack them, as by `gunzip" in capsys.readouterr().err
    (tmp_path / "file").write_text("x")
    assert main(["shard", f"out={tmp_path / 'file'}", "data.train.count=2"]) == 2
    assert "expected a folder, got a file" in capsys.readouterr().err
