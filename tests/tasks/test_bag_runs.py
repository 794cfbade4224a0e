"""Bags under likelihood, contrastive learning and rewards: batches are bags, and a run stopped within an epoch of bags
ends as the uninterrupted one, to the last bit."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from capkit.checkpoint.loading import read_checkpoint
from capkit.cli import main
from capkit.data.curricula.bag_files import hash_of_keys, write_bags
from capkit.run.folder import RunFolder
from capkit.sceneworld.sources.scenes import SceneWorld
from capkit.train.dual_encoder_module import DualEncoderModule
from capkit.train.mle_module import MLEModule
from capkit.train.rl.module import RLModule

pytestmark = pytest.mark.integration

STEPS, STOPPED_AT = 8, 5
COUNTS = {"train": 16, "val": 4, "test": 4}
SMALL = [f"data.{split}.count={count}" for split, count in COUNTS.items()]
SMALL += [f"data.{split}.size=32" for split in COUNTS]
ONE_PROCESS = ["trainer=cpu", "trainer.devices=1"]
DATA = [
    "debug=tiny", *SMALL, "val_every=4", "controls=0",
    "callback.checkpoints.every_steps=1", "callback.recorder.every_steps=1", f"max_steps={STEPS}", "trainer=cpu",
    "curriculum=bags",
]  # fmt: skip
MODEL = [
    "model.width=32", "model.num_layers=1", "model.image_encoder.channels=[8,8]", "model.image_encoder.blocks=[0,0]",
    "model.image_encoder.width=32", "model.image_encoder.image_size=32", "decoding.max_length=6",
]  # fmt: skip
ENCODER = [
    "model.image_tower.image_size=32", "model.image_tower.width=16", "model.embed_dim=16",
    "model.text_tower.config.hidden_size=16", "model.text_tower.config.intermediate_size=16",
]  # fmt: skip
REWARDED = [
    "reward=[length]", "reward.length.scorer.shortest=1", "reward.length.scorer.longest=2", "decoding.max_length=6",
    "objective=self_critical", "objective.baseline=running_mean", "objective.num_samples=3", "optimizer.lr=1e-2",
]  # fmt: skip
# Epochs have four batches of two bags of 2, and four batches of one bag of 4. Both change within an epoch.
BY_STEP = ["curriculum.by=step", "curriculum.stages={3: hard-2, 8: hard-4}"]
BY_LEVEL = [
    "curriculum.by=level", "curriculum.stages=[hard-2,hard-4,easy-2]", "curriculum.levels=[0,2]", "curriculum.window=3",
    "curriculum.level_of=reward/length",
]  # fmt: skip
TASKS = {
    "fit": ([*MODEL, *BY_STEP], MLEModule),
    "fit_encoder": (["task=fit_encoder", *ENCODER, *BY_STEP], DualEncoderModule),
    "fit_rl": (["task=fit_rl", *REWARDED, *BY_LEVEL], RLModule),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bag runs")
    source = SceneWorld("train", 16, 32, cache_dir=str(path / "scenes"))
    keys = [source.record(index).key for index in range(16)]
    lists = {f"hard-{size}": [keys[start : start + size] for start in range(0, 16, size)] for size in (2, 4)}
    lists["easy-2"] = [[keys[place], keys[place + 8]] for place in range(8)]
    about = {"split": "train", "num_keys": 16, "keys_hash": hash_of_keys(keys), "lists": {name: {} for name in lists}}
    write_bags(path / "bags", lists, about)
    for split in ("val", "test"):
        held_out = SceneWorld(split, 4, 32, cache_dir=str(path / "scenes"))
        names = [held_out.record(index).key for index in range(4)]
        (path / f"{split}-2.json").write_text(json.dumps([names[:2], names[2:]]))
    return path


@pytest.fixture(scope="module")
def command(folder):
    caches = [f"data.{split}.cache_dir={folder / 'scenes'}" for split in ("train", "val", "test")]
    return [*DATA, *caches, f"curriculum.folder={folder / 'bags'}"]


@pytest.fixture(scope="module")
def trained(folder, command):
    """The folder of a captioner (mle) and of two judges, each trained for a step."""
    few = [*BY_STEP, "max_steps=1"]
    assert main([*command, *MODEL, *few, f"run_dir={folder / 'mle'}"]) == 0
    for seed, name in enumerate(("judge", "judge2")):
        words = ["task=fit_encoder", *ENCODER, *few, f"seed={seed}", f"run_dir={folder / name}"]
        assert main([*command, *words]) == 0
    return folder


@pytest.fixture(scope="module")
def files(folder):
    return f"[{','.join(str(folder / f'{split}-2.json') for split in ('val', 'test'))}]"


@pytest.fixture
def start(request, files):
    """What a run by rewards starts from, and a judge that looks for pictures in bags; nothing for the others."""
    if request.node.callspec.params["task"] != "fit_rl":
        return []
    path = request.getfixturevalue("trained")
    judged = [f"metric.truematch.encoder.ckpt={path / 'judge'}", "metric=[diversity,truematch_trained]"]
    return [f"init_from={path / 'mle'}", *judged, f"metric.truematch.files={files}"]


def state(run):
    """Of the last step."""
    checkpoint = read_checkpoint(run.path)
    assert checkpoint["global_step"] == STEPS
    return checkpoint


def numbers(run):
    """What each step logged; wall time left out."""
    rows = [row for row in run.current_rows() if "train/loss" in row]
    kept = ("train/loss", "train/grad_norm", "train/bag_size", "rl/", "reward/")
    return [{name: value for name, value in row.items() if name.startswith(kept)} for row in rows]


def titles(page):
    return set(re.findall(r"font-weight='600' font-size='13'>([^<]*)<", page))


@pytest.mark.parametrize("task", TASKS)
def test_a_run_on_bags_trains_and_ends_the_same_when_it_was_stopped(task, command, start, tmp_path, monkeypatch):
    words, module = TASKS[task]
    words = [*command, *words, *start]
    seen = []
    step = module.training_step

    def watched(self, batch, batch_idx):
        seen.append((self.global_step, batch.bag.tolist()))
        return step(self, batch, batch_idx)

    def dying(self, batch, batch_idx):
        if self.global_step == STOPPED_AT:
            raise RuntimeError("pulled the plug")
        return watched(self, batch, batch_idx)

    monkeypatch.setattr(module, "training_step", watched)
    assert main([*words, f"run_dir={tmp_path / 'once'}"]) == 0
    once_seen, seen[:] = list(seen), []
    with monkeypatch.context() as patched:
        patched.setattr(module, "training_step", dying)
        with pytest.raises(RuntimeError, match="pulled the plug"):
            main([*words, f"run_dir={tmp_path / 'again'}"])
    assert main([*words, "data.num_workers=2", f"run_dir={tmp_path / 'again'}"]) == 0

    assert seen == once_seen and [number for number, _ in seen] == list(range(STEPS))
    assert [sorted(bag.count(one) for one in set(bag)) for _, bag in seen] == [[2, 2]] * 3 + [[4]] * 5
    once, again = RunFolder(tmp_path / "once"), RunFolder(tmp_path / "again")
    assert numbers(again) == numbers(once)
    assert [row["train/bag_size"] for row in numbers(once)] == [2.0] * 3 + [4.0] * 5
    assert all(row["train/grad_norm"] > 0 for row in numbers(once))
    ours, theirs = state(again), state(once)
    assert all(torch.equal(value, ours["state_dict"][name]) for name, value in theirs["state_dict"].items())
    if task == "fit_rl":
        assert theirs["CaptionDataModule"]["curriculum"]["levels"]["began"] == [3]
        assert ours["rl"] == theirs["rl"]
        assert [row["step"] for row in again.current_rows() if "val/truematch_2_r1" in row] == [0, 4, 8]
        page = again.report.read_text()
        assert page.count("<table class='bag'>") == 2 and {"R@1 in bags: truematch", "images in a bag"} <= titles(page)


def test_a_level_of_a_number_that_is_not_logged_is_refused(command, tmp_path, capsys):
    assert main([*command, *MODEL, *BY_LEVEL, f"run_dir={tmp_path / 'run'}"]) == 2
    assert "level_of=reward/length is not logged; choose one of: train/bag_size, train/grad" in capsys.readouterr().err


def test_one_evaluation_has_retrieval_by_two_judges_beside_faithfulness(trained, command, files, tmp_path):
    caches = [word for word in command if "cache_dir" in word]
    metrics = "metric=[facts,cider,clip_score_trained,rd20_trained,truematch_trained,truematch_second_trained]"
    judges = [f"metric.{name}.encoder.ckpt={trained / 'judge'}" for name in ("truematch", "clip_score")]
    judges += [f"metric.{name}.encoder.ckpt={trained / 'judge2'}" for name in ("truematch_second", "rd20")]
    words = [f"metric.{name}.files={files}" for name in ("truematch", "truematch_second")]
    words += ["metric.rd20.num_distractors=3", *SMALL, *ONE_PROCESS, *caches]
    assert main(["evaluate", f"ckpt={trained / 'mle'}", metrics, *judges, *words, f"run_dir={tmp_path / 'run'}"]) == 0
    numbers = RunFolder(tmp_path / "run").metrics()
    wanted = ("truematch_2_r1", "truematch_second_2_r1", "rd20_r1", "clip_score_mean", "fact_precision", "cider")
    assert {f"test/{name}" for name in wanted} <= numbers.keys()
    assert numbers["test/truematch_2_bags"] == 2
    assert set(json.loads((tmp_path / "run" / "judges.json").read_text())) == {
        "clip_score", "rd20", "truematch", "truematch_second",
    }  # fmt: skip


def test_imagecodes_pictures_are_captioned_and_judged_without_captions_of_their_own(trained, tmp_path):
    for number in range(8):
        picture = np.full((32, 32, 3), 30 * number, np.uint8)
        path = tmp_path / "sets" / f"open-images-{number // 4}" / f"img{number % 4}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    (tmp_path / "valid_data.json").write_text('{"open-images-0": {"1": "dark"}, "open-images-1": {"0": "grey"}}')
    data = [
        "data=imagecode",
        f"data.predict.images={tmp_path / 'sets'}",
        "data.transform.size=32",
        "data.num_workers=0",
    ]
    data += [f"data.predict.file={tmp_path / 'valid_data.json'}", "data.predict.set_size=4", "split=predict"]
    judge = "metric.imagecode.encoder={_target_: capkit.checkpoint.loading.load_dual_encoder, ckpt: %s}" % (
        trained / "judge"
    )
    words = [
        f"metric.imagecode.file={tmp_path / 'valid_data.json'}",
        "metric.imagecode.set_size=4",
        judge,
        *ONE_PROCESS,
        f"run_dir={tmp_path / 'run'}",
    ]
    assert main(["evaluate", f"ckpt={trained / 'mle'}", "metric=[imagecode]", *data, *words]) == 0
    numbers = RunFolder(tmp_path / "run").metrics()
    assert numbers["predict/imagecode_targets"] == 2 and numbers["predict/imagecode_pool"] == 8
    assert 0 <= numbers["predict/imagecode_r1"] == numbers["predict/imagecode_static_r1"] <= 1


def test_winogrounds_pairs_judge_an_encoder_and_a_captioner_by_command(trained, tmp_path):
    (tmp_path / "images").mkdir()
    rows = []
    for pair in range(3):
        names = [f"ex_{pair}_img_{side}" for side in (0, 1)]
        for side, name in enumerate(names):
            picture = np.full((32, 32, 3), 80 * pair + 30 * side, np.uint8)
            Image.fromarray(picture).save(tmp_path / "images" / f"{name}.png")
        images = dict(zip(("image_0", "image_1"), names, strict=True))
        texts = {"caption_0": "a red circle", "caption_1": "a circle, red", "collapsed_tag": "Object"}
        rows.append(json.dumps({"id": pair, **images, **texts}))
    (tmp_path / "examples.jsonl").write_text("\n".join(rows))
    words = [f"evaluator.winoground.source.folder={tmp_path}", f"run_dir={tmp_path / 'encoder'}", *ONE_PROCESS]
    assert main(["evaluate_encoder", f"ckpt={trained / 'judge'}", "evaluator=[winoground]", *words]) == 0
    numbers = RunFolder(tmp_path / "encoder").metrics()
    assert numbers["test/winoground_pairs"] == 3
    scores = [numbers[f"test/winoground_{name}"] for name in ("group", "text", "image")]
    assert scores == [numbers[f"test/winoground_object_{name}"] for name in ("group", "text", "image")]
    assert 0 <= scores[0] <= min(scores[1:])
    data = ["data=winoground", f"data.predict.folder={tmp_path}", "data.transform.size=32", "data.num_workers=0"]
    judge = ["metric=[truematch_trained]", f"metric.truematch.encoder.ckpt={trained / 'judge'}"]
    words = ["split=predict", *judge, "metric.truematch.files=null", *ONE_PROCESS, f"run_dir={tmp_path / 'captioner'}"]
    assert main(["evaluate", f"ckpt={trained / 'mle'}", *data, *words]) == 0
    numbers = RunFolder(tmp_path / "captioner").metrics()
    assert numbers["predict/truematch_2_bags"] == 3 and 0 <= numbers["predict/truematch_2_r1"] <= 1
