"""`fit`, `evaluate` and `caption` from the command line's `main`, on a handful of scenes."""

import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from interrupted import assert_equal_weights, interrupt_and_resume, numbers
from PIL import Image
from tiny_fit_run import EVALUATED, TINY, caches

from capkit.checkpoint.files import load_checkpoint
from capkit.cli import main
from capkit.data.datamodule import CaptionDataModule
from capkit.errors import USAGE_STATUS
from capkit.run.folder import RunFolder
from capkit.train.mle_module import MLEModule


@pytest.fixture
def folder(tiny_fit):
    return tiny_fit


def weights(path):
    return load_checkpoint(path)["state_dict"]


def test_a_run_leaves_config_metrics_predictions_checkpoints_and_report(folder):
    run = RunFolder(folder / "run")
    assert [row["step"] for row in run.rows() if "train/loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in run.rows() if "val/loss" in row] == [2, 4]
    numbers = run.metrics()
    for name in ("cider", "bleu_4", "rouge_l", "fact_f1", "fact_precision", "fact_recall", "distinct_2", "length"):
        assert {f"test/{name}", f"test/shuffled/{name}", f"test/untrained/{name}"} <= numbers.keys()
    intervals = json.loads((run.path / "intervals.json").read_text())
    assert {"cider", "bleu_4", "fact_f1"} <= intervals.keys()
    assert all(low <= high for low, high in intervals.values())
    (start,) = json.loads((run.path / "about.json").read_text())
    assert "run_dir=" in start["command"] and start["versions"]["torch"]
    assert numbers["train/seconds"] > 0 and numbers["train/steps"] == 4
    predictions = json.loads((run.predictions / "test.json").read_text())
    assert len(predictions) == 4 and set(predictions[0]) == {"image_id", "caption"}
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["step-00000003.ckpt", "step-00000004.ckpt"]


def test_a_run_has_its_folder_to_itself(folder):
    assert json.loads((folder / "run/.lock").read_text())["pid"] == os.getpid()


def test_the_report_needs_nothing_from_outside_and_shows_every_caption(folder):
    page = (folder / "run" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r"(src|href)=['\"](?!data:)", page)
    for row in json.loads((folder / "run" / "predictions" / "test.json").read_text()):
        assert row["caption"] in page


def test_the_predictions_score_as_the_run_says(folder):
    from capkit.metrics import cider

    run = RunFolder(folder / "run")
    captions = {row["image_id"]: row["caption"] for row in json.loads((run.predictions / "test.json").read_text())}
    references: dict[str, list[str]] = {key: [] for key in captions}
    for row in json.loads((run.predictions / "test_references.json").read_text())["annotations"]:
        references[row["image_id"]].append(row["caption"])
    keys = sorted(captions)
    value = cider([captions[key] for key in keys], [references[key] for key in keys])
    assert run.metrics()["test/cider"] == pytest.approx(value, abs=1e-9)


def test_the_same_command_again_trains_no_further(folder, capsys):
    before = (folder / "run" / "metrics.json").read_text()
    assert main([*TINY, *caches(folder), f"run_dir={folder / 'run'}"]) == 0
    assert "all 4 steps were done before" in capsys.readouterr().out
    assert (folder / "run" / "metrics.json").read_text() == before


def test_a_start_that_its_checkpoint_refuses_leaves_the_run_as_it_was(folder, tmp_path, monkeypatch, capsys):
    """Changed data is seen where the checkpoint is restored; the command of before must still find the run done."""
    shutil.copytree(folder / "run", tmp_path / "run")
    before = contents(tmp_path / "run")
    command = [*TINY, *caches(folder), f"run_dir={tmp_path / 'run'}"]
    with monkeypatch.context() as patched:
        patched.setattr(CaptionDataModule, "fingerprint", {"records": 16, "hash": "of other captions"})
        assert main([*command, "max_steps=5"]) == USAGE_STATUS
    assert "the training data changed since the checkpoint was saved" in capsys.readouterr().err
    assert contents(tmp_path / "run") == before
    assert main(command) == 0
    assert "all 4 steps were done before" in capsys.readouterr().out


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.name != ".lock"}


@pytest.mark.integration
def test_an_interrupted_run_ends_as_the_uninterrupted_one(folder, tmp_path, monkeypatch):
    command = [*TINY, *caches(folder), f"run_dir={tmp_path / 'run'}"]
    interrupt_and_resume(command, MLEModule, monkeypatch)
    again, once = RunFolder(tmp_path / "run"), RunFolder(folder / "run")
    assert_equal_weights(again, once)
    assert numbers(again, "train/loss") == numbers(once, "train/loss") != []
    assert {row["attempt"] for row in again.rows()} == {1, 2}
    assert (again.predictions / "test.json").read_text() == (once.predictions / "test.json").read_text()


@pytest.mark.integration
def test_a_run_that_was_done_and_lost_its_last_checkpoint_is_not_done_while_it_goes_over_it(
    folder, tmp_path, monkeypatch
):
    """Killed between the step's checkpoint and its validation, it does that validation again."""
    shutil.copytree(folder / "run", tmp_path / "run")
    again = RunFolder(tmp_path / "run")
    shutil.rmtree(again.checkpoints / "step-00000004.ckpt")
    command = [*TINY, *caches(folder), f"run_dir={again.path}"]

    def die(self):
        raise RuntimeError("pulled the plug")

    with monkeypatch.context() as patched:
        patched.setattr(MLEModule, "on_validation_epoch_start", die)
        with pytest.raises(RuntimeError, match="pulled the plug"):
            main(command)
    assert (again.checkpoints / "step-00000004.ckpt").exists() and not again.report.exists()
    assert main(command) == 0
    losses = [
        [r["val/loss"] for r in run.current_rows() if "val/loss" in r] for run in (again, RunFolder(folder / "run"))
    ]
    assert losses[0] == losses[1] and again.report.exists()


def test_a_changed_config_is_refused_with_its_keys(folder, capsys):
    assert main([*TINY, *caches(folder), f"run_dir={folder / 'run'}", "optimizer.lr=0.5"]) == 2
    assert "optimizer.lr: 0.0025 -> 0.5" in capsys.readouterr().err


def test_evaluate_gives_the_numbers_of_the_run_that_trained(folder, tmp_path):
    command = ["evaluate", *EVALUATED, *caches(folder), f"ckpt={folder / 'run'}", f"run_dir={tmp_path / 'eval'}"]
    assert main(command) == 0
    trained, evaluated = RunFolder(folder / "run").metrics(), RunFolder(tmp_path / "eval").metrics()
    names = [name for name in evaluated if name.count("/") == 1]
    assert names and all(evaluated[name] == trained[name] for name in names)


SHORT = ["shortest=0", "longest=0", "fall_off=6"]  # 1 for no word, falling to 0 at six


@pytest.mark.integration
def test_evaluate_and_caption_write_the_candidate_that_a_scorer_rates_highest(folder, tmp_path, capsys):
    metric = ["metric=[length]", *(f"metric.length.scorer.{word}" for word in SHORT)]
    reward = ["reward=[length]", *(f"reward.length.scorer.{word}" for word in SHORT)]
    numbers = {}
    for decoding, words in {"sample": [], "rerank": reward}.items():
        command = ["evaluate", *EVALUATED, *caches(folder), f"ckpt={folder / 'run'}", f"run_dir={tmp_path / decoding}"]
        assert main([*command, *metric, f"decoding={decoding}", *words]) == 0
        numbers[decoding] = RunFolder(tmp_path / decoding).metrics()["test/length"]
    assert numbers["rerank"] > numbers["sample"]
    assert json.loads((tmp_path / "rerank/reranker.json").read_text())["length"]["fall_off"] == 6

    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "a.png")
    command = ["caption", f"ckpt={folder / 'run'}", f"images={tmp_path / 'a.png'}", f"out={tmp_path / 'out.jsonl'}"]
    command += ["decoding=rerank", "decoding.max_length=6"]
    assert main([*command, *reward]) == 0
    about = json.loads((tmp_path / "out.jsonl.about.json").read_text())
    assert about["rerank"]["provenance"]["length"]["fall_off"] == 6
    assert (
        main([*command, *reward[:-1], "reward.length.scorer.fall_off=5"]) == 2
        and "out.jsonl" in capsys.readouterr().err
    )  # another scorer's
    assert main([*command, "reward=[cider]"]) == 2 and "needs no references" in capsys.readouterr().err


@pytest.mark.integration
def test_init_from_takes_the_weights_and_starts_at_step_0(folder, tmp_path):
    init = f"init_from={folder / 'run/checkpoints/step-00000004.ckpt'}"
    assert main([*TINY, *caches(folder), init, f"run_dir={tmp_path / 'run'}", "optimizer.lr=1e-9"]) == 0
    ours, theirs = (
        weights(tmp_path / "run/checkpoints/step-00000004.ckpt"),
        weights(folder / "run/checkpoints/step-00000004.ckpt"),
    )
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)
    assert min(row["step"] for row in RunFolder(tmp_path / "run").rows()) == 1


@pytest.mark.integration
def test_caption_writes_one_line_an_image_skips_the_unreadable_and_goes_on_where_it_stopped(folder, tmp_path, capsys):
    images = tmp_path / "my photos (1) = new"
    images.mkdir()
    for name in ("b 2.png", "a.jpg"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(images / name)
    (images / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    out = tmp_path / "captions [all].jsonl"
    command = ["caption", f"ckpt={folder / 'run'}", f"images={images}", f"out={out}", "decoding.max_length=6"]
    assert main(command) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["image"] for row in rows] == ["a.jpg", "b 2.png"]
    assert all(isinstance(row["caption"], str) for row in rows)
    skipped = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [row["key"] for row in skipped] == ["broken.jpg"]
    out.write_text(out.read_text().splitlines(keepends=True)[0] + '{"image": "b 2')  # killed while writing
    assert main(command) == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows
    assert main([*command, f"out={tmp_path / 'table.csv'}"]) == 2
    assert f"give out={tmp_path / 'table.jsonl'}" in capsys.readouterr().err


@pytest.fixture
def captioned(folder, tmp_path, monkeypatch, capsys):
    """One picture, captioned by the run's last checkpoint, in the folder that this process works in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photos/a.png")
    command = ["caption", f"ckpt={folder / 'run'}", "images=photos", "decoding.max_length=6"]
    assert main(command) == 0
    return command


@pytest.mark.integration
def test_the_caption_of_one_picture_is_printed_and_the_file_is_named_by_images_and_run(captioned, tmp_path, capsys):
    out = tmp_path / "photos.run.captions.jsonl"
    caption = json.loads(out.read_text())["caption"]
    assert main(captioned) == 0
    printed, told = capsys.readouterr().out.splitlines()[-2:]
    assert printed == caption and told.endswith(f" s (1 were there before): {out.name}")


@pytest.mark.integration
def test_captions_of_another_checkpoint_decoding_or_folder_are_not_passed_off_as_these(
    captioned, folder, tmp_path, capsys
):
    out = tmp_path / "photos.run.captions.jsonl"
    written = out.read_bytes()
    shutil.copytree("photos", "others")
    task, ckpt, *others = captioned
    earlier = f"ckpt={folder / 'run/checkpoints/step-00000003.ckpt'}"
    for words, difference in (
        ([task, earlier, *others], "step is 4, wanted 3"),
        ([*captioned, "decoding=beam"], "decoding.num_beams is 1, wanted 5"),
        ([task, ckpt, "images=others"], f"images is '{tmp_path / 'photos'}', wanted '{tmp_path / 'others'}'"),
    ):
        assert main([*words, f"out={out}"]) == 2
        told = capsys.readouterr().err
        assert difference in told and "give another out=FILE" in told
    assert out.read_bytes() == written
    shutil.move("photos.run.captions.jsonl.about.json", "gone")
    assert main(captioned) == 2
    assert "does not say which checkpoint and decoding wrote them" in capsys.readouterr().err


@pytest.mark.integration
def test_a_run_that_was_moved_still_writes_the_captions_it_began(captioned, folder, tmp_path, capsys):
    task, _, *others = captioned
    shutil.copytree(folder / "run", "moved")
    assert main([task, "ckpt=moved", *others, "out=photos.run.captions.jsonl"]) == 0
    assert "1 were there before" in capsys.readouterr().out


@pytest.mark.integration
@pytest.mark.parametrize(
    "line", [b"", b'"a"', b"\xff", b'{"image": "a"}'], ids=["empty", "no object", "not UTF-8", "no caption"]
)
def test_a_line_that_is_no_caption_is_named(captioned, tmp_path, line, capsys):
    out = tmp_path / "photos.run.captions.jsonl"
    out.write_bytes(out.read_bytes() + line + b"\n")
    assert main(captioned) == 2
    assert "in line 2" in capsys.readouterr().err


@pytest.mark.integration
def test_dry_run_says_what_the_run_would_be_builds_no_picture_and_writes_nothing(tmp_path, capsys):
    large = ["data.train.count=30000", "data.val.count=200", "trainer.devices=2", "max_steps=null", "max_epochs=2"]
    command = [*TINY, *large, *caches(tmp_path), f"run_dir={tmp_path / 'plan'}", "scheduler.warmup=100"]
    assert main([*command, "dry_run=true"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "device CPU, 2 processes of 1 thread, float32 model EncoderDecoder, " in printed
    assert "data SceneWorld: train 30,000, val 200, test 6 images" in printed
    assert "steps 15,000 of 4 images; 2.00 epochs of 7,500; warm-up 100; validation every 2 " in printed
    assert f"run folder {tmp_path / 'plan'} " in printed
    assert "4 images a step = 2 ranks x 1 micro-batches of 2" in printed and "image_encoder" in printed
    for split in ("train", "val", "test"):
        assert f"{split} the first picture, '{split}-0', is 64 x 64" in printed
    assert "capkit plan trainable=" in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_file_that_is_no_checkpoint_is_a_clear_error(tmp_path, content, capsys):
    path = tmp_path / "x.ckpt"
    torch.save({"weights": 1}, path) if content is None else path.write_bytes(content)
    assert main(["caption", f"ckpt={path}", f"images={tmp_path}"]) == 2
    assert str(path) in capsys.readouterr().err


def test_a_checkpoint_cannot_name_code_from_elsewhere(folder, tmp_path, capsys):
    checkpoint = load_checkpoint(folder / "run/checkpoints/step-00000004.ckpt")
    checkpoint["capkit"]["config"]["model"]["image_encoder"] = {"_target_": "os.system", "command": "false"}
    torch.save(checkpoint, tmp_path / "x.ckpt")
    assert main(["caption", f"ckpt={tmp_path / 'x.ckpt'}", f"images={tmp_path}"]) == 2
    assert "names 'os.system' at model.image_encoder; expected a class of capkit.models" in capsys.readouterr().err


@pytest.mark.integration
@pytest.mark.parametrize(("words", "batches"), [([], [4]), (["trainer.limit_val_batches=1.0"], [4, 2])])
def test_a_debug_run_validates_one_batch_and_the_trainer_says_how_many(words, batches, folder, tmp_path, monkeypatch):
    seen, step = [], MLEModule.validation_step

    def spied(self, batch, batch_idx):
        seen.append(len(batch.keys))
        step(self, batch, batch_idx)

    monkeypatch.setattr(MLEModule, "validation_step", spied)
    short = [*TINY, *caches(folder), "max_steps=1", "val_every=1", "controls=0", "eval_limit=1"]
    assert main([*short, *words, f"run_dir={tmp_path / 'run'}"]) == 0
    assert seen == batches


def test_without_a_val_source_a_run_trains_and_tests_and_validates_never(folder, tmp_path, capsys):
    tiny = [setting for setting in TINY if not setting.startswith("data.val")]
    command = [*tiny, *caches(folder)[::2], "data.val=null", "max_steps=2", "controls=0", f"run_dir={tmp_path / 'run'}"]
    assert main([*command, "dry_run=true"]) == 0
    assert main([*command, "callback.checkpoints.select=max cider"]) == 2
    assert "data.val=null leaves out the validations that callback=checkpoints needs" in capsys.readouterr().err
    assert main(command) == 0
    run = RunFolder(tmp_path / "run")
    names = {name for row in run.rows() for name in row}
    assert "train/loss" in names and not [name for name in names if name.startswith("val/")]
    assert "test/cider" in run.metrics()
