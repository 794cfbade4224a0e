"""task=mine and task=bags from the command line's `main`, on a folder of pictures; then training and TrueMatch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pixel_judge import COLORS, PixelJudge

from capkit.checkpoint.files import load_checkpoint
from capkit.cli import main
from capkit.curation.mining.neighbors import Neighbors
from capkit.curation.mining.search import Search
from capkit.data.curricula.bag_files import BagFolder
from capkit.data.records import read_manifest
from capkit.metrics.bags import Bags
from capkit.metrics.scoring import score_rows
from capkit.run.folder import RunFolder
from capkit.train.mle_module import MLEModule

pytestmark = pytest.mark.integration

NAMES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """24 training pictures, 8 of each colour in slightly different shades, and 6 for testing; the captions rotate."""
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    rows = []
    for number in range(32):
        color = np.array(COLORS[NAMES[number % 3]])
        pixels = np.clip(color + draw.integers(0, 40, 3), 0, 255).astype(np.uint8)
        Image.fromarray(np.broadcast_to(pixels, (8, 8, 3)).copy()).save(folder / f"{number}.png")
        split = "train" if number < 24 else "test" if number < 30 else "val"
        caption = f"a {NAMES[number // 8 % 3]} thing"
        rows.append({"image": f"{number}.png", "captions": [caption], "split": split})
    (folder / "captions.json").write_text(json.dumps(rows))
    return folder


def command(photos, *words):
    return [
        *words, "data=folder", f"data.train.images={photos}", f"data.train.captions={photos / 'captions.json'}",
        "data.num_workers=0", "data.transform.size=8", "encoder={_target_: pixel_judge.PixelJudge}",
        "num_neighbors=7", "duplicate_threshold=1",
    ]  # fmt: skip


def mined(photos, run, *words):
    assert main([*command(photos, "mine"), f"run_dir={run}", *words]) == 0
    return Neighbors(run)


def number(key):
    return int(key.split("/")[-1].removesuffix(".png"))


def test_a_folder_of_pictures_is_mined_by_image(photos, tmp_path):
    found = mined(photos, tmp_path / "run")
    assert len(found.keys) == 24 and found.about["split"] == "train" and found.about["encoder"]["scorer"] == "pixels"
    for key, row in zip(found.keys, found.rows.tolist(), strict=True):
        assert {number(found.keys[place]) % 3 for place in row} == {number(key) % 3}, "the seven of its colour"
    assert not (tmp_path / "run" / "search").exists()
    assert RunFolder(tmp_path / "run").metrics()["images"] == 24


def test_by_text_and_combined_compare_captions_as_well(photos, tmp_path):
    by_text = mined(photos, tmp_path / "text", "by=text")
    for key, row in zip(by_text.keys, by_text.rows.tolist(), strict=True):
        assert {number(by_text.keys[place]) // 8 for place in row} == {number(key) // 8}
    both = mined(photos, tmp_path / "both", "by=combined")
    image, text = mined(photos, tmp_path / "image").vectors, by_text.vectors
    mean = (image + text) / 2
    assert np.allclose(both.vectors, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)


def test_an_interrupted_run_goes_on_and_a_finished_one_does_nothing_again(photos, tmp_path, monkeypatch):
    once = mined(photos, tmp_path / "once")

    def die(self, number):
        raise RuntimeError("pulled the plug")

    with monkeypatch.context() as patched:
        patched.setattr(Search, "chunk", die)
        with pytest.raises(RuntimeError, match="pulled the plug"):
            mined(photos, tmp_path / "again")
    with monkeypatch.context() as patched:
        patched.setattr(PixelJudge, "encode_image", die)  # the embeddings are on disk
        again = mined(photos, tmp_path / "again")
        patched.setattr(Search, "chunk", die)
        mined(photos, tmp_path / "again")
    files = [run.folder / "neighbors.jsonl" for run in (once, again)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_encoder_that_changed_is_refused_in_the_same_run(photos, tmp_path, capsys):
    mined(photos, tmp_path / "run")
    words = ["encoder={_target_: pixel_judge.PixelJudge, version: 2}", f"run_dir={tmp_path / 'run'}"]
    assert main([*command(photos, "mine")[:-3], "num_neighbors=7", "duplicate_threshold=1", *words]) == 2
    assert "encoder.version" in capsys.readouterr().err


def test_wrong_values_are_refused(photos, tmp_path, capsys):
    for words, message in (
        (["by=sound"], "by on the command line: expected image or text or combined"),
        (["num_neighbors=24"], "got 24 for 24 images"),
        (["split=dev"], "expected train or val or test, got the text 'dev'"),
    ):
        assert main([*command(photos, "mine"), f"run_dir={tmp_path / words[0]}", *words]) == 2
        assert message in capsys.readouterr().err


def test_copies_of_test_pictures_leave_the_training_set_by_command(photos, tmp_path):
    """Sizes come from the files, near-duplicates from two mined folders; the picture that is no copy stays."""
    folder, runs = tmp_path / "web", tmp_path / "runs"
    folder.mkdir()
    Image.open(photos / "24.png").save(folder / "copy.png")
    Image.new("RGB", (8, 8), (250, 250, 10)).save(folder / "own.png")
    rows = [{"image": f"{name}.png", "captions": [f"a web picture of {name}"]} for name in ("copy", "own")]
    (folder / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    web = ["data=manifest", *(f"data.{split}.path={folder / 'web.jsonl'}" for split in ("train", "val", "test"))]
    mine = ["data.transform.size=8", "encoder={_target_: pixel_judge.PixelJudge}", "num_neighbors=1"]
    assert main(["mine", *web, *mine, "duplicate_threshold=1", f"run_dir={runs / 'web'}"]) == 0
    mined(photos, runs / "test", "split=test", "num_neighbors=1")
    steps = ["step=[image_size,align_filter]", "step.align_filter.min_side=8", "step.align_filter.min_words=1"]
    copies = [
        f"step.align_filter.neighbors={runs / 'web'}", f"step.align_filter.evaluation_sets=[{runs / 'test'}]",
        "step.align_filter.duplicate_threshold=0.9999",
    ]  # fmt: skip
    assert main(["curate", *web, *steps, *copies, f"out={tmp_path / 'clean'}"]) == 0
    (kept,) = read_manifest(tmp_path / "clean/train.jsonl")
    assert (kept.key, kept.metadata) == ("own.png", {"width": 8, "height": 8})
    report = json.loads((tmp_path / "clean/train.report.json").read_text())["counts"]
    assert (report["image_size/measured"], report["align_filter/evaluation_duplicate"], report["failed"]) == (2, 1, 1)
    (failure,) = [json.loads(line) for line in (tmp_path / "clean/train.failures.jsonl").read_text().splitlines()]
    assert (failure["key"], failure["reason"]) == ("copy.png", "evaluation_duplicate")
    assert main(["curate", *web, *steps, f"out={tmp_path / 'all'}"]) == 0
    assert {record.key for record in read_manifest(tmp_path / "all/train.jsonl")} == {"copy.png", "own.png"}


@pytest.fixture(scope="module")
def runs(photos, tmp_path_factory):
    """Bags of the training and of the test split."""
    folder = tmp_path_factory.mktemp("runs")
    for split, count, sizes in (("train", 7, "[2,4]"), ("test", 4, "[2]")):
        mined(photos, folder / f"mine-{split}", f"split={split}", f"num_neighbors={count}")
        words = [f"neighbors={folder / f'mine-{split}'}", f"sizes={sizes}", "neighborhoods=[hard,random]"]
        assert main(["bags", *words, f"split={split}", f"run_dir={folder / f'bags-{split}'}"]) == 0
    return folder


def test_bags_are_of_one_colour_and_their_quality_is_told(runs):
    found = BagFolder(runs / "bags-train")
    for size in (2, 4):
        bags = found.bags(f"hard-{size}")
        assert len(bags) == 24 / size and all(len({number(key) % 3 for key in bag}) == 1 for bag in bags)
        told = found.about["lists"][f"hard-{size}"]
        assert told["placed"] == 1 and told["similarity"] > 0.9 > 0.6 > told["random_similarity"]
    assert RunFolder(runs / "bags-train").metrics()["hard-4/left_out"] == 0


def test_bags_of_another_split_than_asked_for_are_refused(runs, tmp_path, capsys):
    assert main(["bags", f"neighbors={runs / 'mine-train'}", "split=test", f"run_dir={tmp_path / 'x'}"]) == 2
    assert "expected neighbors of split=test" in capsys.readouterr().err


def fit(photos, runs, run, *words):
    return [
        "debug=tiny", "data=folder", f"data.train.images={photos}", f"data.train.captions={photos / 'captions.json'}",
        "data.num_workers=0", "data.transform.size=32", "curriculum=bags", f"curriculum.folder={runs / 'bags-train'}",
        "curriculum.stages={1: hard-2, 2: hard-4}", "data.batch_size=8", "max_steps=5", "controls=0", "metric=[]",
        "model.width=32", "model.num_layers=1", "model.image_encoder.channels=[8,8]", "val_every=5",
        "model.image_encoder.blocks=[0,0]", "model.image_encoder.width=32", "model.image_encoder.image_size=32",
        "callback.checkpoints.every_steps=1", "callback.recorder.every_steps=1", f"run_dir={run}", *words,
    ]  # fmt: skip


def state(run):
    return load_checkpoint(run / "checkpoints" / "step-00000005.ckpt")["state_dict"]


def test_training_that_was_interrupted_within_an_epoch_of_bags_ends_the_same_to_the_last_bit(
    photos, runs, tmp_path, monkeypatch
):
    assert main(fit(photos, runs, tmp_path / "once")) == 0
    step = MLEModule.training_step

    def die_at_step_4(self, batch, batch_idx):  # the second batch of the second epoch
        if self.global_step == 4:
            raise RuntimeError("pulled the plug")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(MLEModule, "training_step", die_at_step_4)
        with pytest.raises(RuntimeError, match="pulled the plug"):
            main(fit(photos, runs, tmp_path / "again"))
    assert main(fit(photos, runs, tmp_path / "again")) == 0
    once, again = state(tmp_path / "once"), state(tmp_path / "again")
    assert once.keys() == again.keys() and all(torch.equal(once[name], again[name]) for name in once)
    hashes = json.loads((tmp_path / "once" / "curriculum.json").read_text())["lists"]
    assert hashes["hard-2"]["hash"] == BagFolder(runs / "bags-train").hash("hard-2")


def test_training_on_bags_of_test_images_is_refused(photos, runs, tmp_path, capsys):
    words = [f"curriculum.folder={runs / 'bags-test'}", "curriculum.stages={1: hard-2}"]
    assert main(fit(photos, runs, tmp_path / "run", *words)) == 2
    assert "bags of the test split" in capsys.readouterr().err


class Oracle(PixelJudge):
    """Knows each colour by a number, which a caption can name: a judge for which captions can be perfect."""

    name = "oracle"

    def encode_image(self, pixels):
        return torch.nn.functional.one_hot(torch.tensor([color_number(p) for p in pixels[:, :, 0, 0]]), 3000).float()

    def encode_text(self, texts):
        rows = [torch.eye(3000)[int(text)] if text.isdigit() else torch.ones(3000) / 3000**0.5 for text in texts]
        return torch.stack(rows)


def color_number(rgb):
    red, green, blue = (int(value) for value in rgb)
    return 7 * red + 3 * green + blue


def test_truematch_takes_our_bags_with_two_judges_side_by_side(photos, runs):
    bags = str(runs / "bags-test" / "bags" / "hard-2.json")
    keys = sorted({key for bag in json.loads(Path(bags).read_text()) for key in bag})
    pictures = {key: np.array(Image.open(photos / key)) for key in keys}
    metrics = {
        "truematch": Bags(Oracle(), [bags]),
        "truematch_second": Bags(PixelJudge(), [bags], name="truematch_second"),
    }

    def numbers(caption):
        rows = [{"key": key, "caption": caption(key), "references": ["x"], "metadata": {}} for key in keys]
        return score_rows(rows, metrics, pictures.__getitem__)

    oracle = numbers(lambda key: str(color_number(pictures[key][0, 0])))
    constant = numbers(lambda key: "a thing")
    assert oracle["truematch_2_r1"] == 1 and constant["truematch_2_r1"] == 0.5
    assert oracle["truematch_second_2_r1"] == 0.5, "the second judge reads no numbers: to it they all say the same"
    assert oracle["truematch_second_2_bags"] == oracle["truematch_2_bags"] == len(keys) / 2
