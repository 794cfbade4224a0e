"""What a run makes up for when it goes on from a checkpoint, from the command line's `main`."""

import pytest
import torch

from capkit.checkpoint.loading import read_checkpoint
from capkit.cli import main
from capkit.run.folder import RunFolder
from capkit.train.mle_module import MLEModule

pytestmark = pytest.mark.integration

TINY = [
    "debug=tiny", "trainer=cpu", "data.train.count=8", "data.val.count=4", "data.test.count=4", "controls=0",
    "model.width=32", "model.num_layers=1", "model.image_encoder.channels=[8,8]", "model.image_encoder.blocks=[0,0]",
    "model.image_encoder.width=32", "decoding.max_length=6", "metric=[diversity]", "max_steps=6", "val_every=2",
    "callback=[recorder,checkpoints]", "callback.checkpoints.every_steps=1", "callback.recorder.every_steps=3",
]  # fmt: skip
STOPS = [  # at step 4: the second validation is no better than the first by far
    "callback=[recorder,checkpoints,early_stopping]", "callback.early_stopping.monitor=val/loss",
    "callback.early_stopping.mode=min", "callback.early_stopping.patience=1",
    "callback.early_stopping.min_delta=100", "callback.checkpoints.every_steps=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    scenes = tmp_path_factory.mktemp("scenes")
    return [*TINY, *(f"data.{split}.cache_dir={scenes}" for split in ("train", "val", "test"))]


@pytest.fixture(scope="module")
def once(command, tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("once") / "run")
    assert main([*command, f"run_dir={run.path}"]) == 0
    return run


def killed(command, run, monkeypatch, place, step):
    """The run as a kill at that place leaves it."""
    method = getattr(MLEModule, place)

    def die(self, *arguments):
        if self.trainer.state.fn == "fit" and self.global_step == step:
            raise RuntimeError("pulled the plug")
        return method(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(MLEModule, place, die)
        with pytest.raises(RuntimeError, match="pulled the plug"):
            main([*command, f"run_dir={run.path}"])


def numbers(run):
    """Everything logged but times."""
    times = ("time", "attempt", "train/images_per_second")
    return [{name: value for name, value in row.items() if name not in times} for row in run.current_rows()]


@pytest.mark.parametrize(
    ("place", "step"),
    [
        ("training_step", 1),  # within a row's steps
        ("on_validation_epoch_end", 4),
        ("on_validation_epoch_end", 6),  # all steps are done, and saved
        ("training_step", 0),  # before anything is saved
    ],
)
def test_a_run_cut_anywhere_writes_the_rows_of_one_that_was_not(command, once, tmp_path, monkeypatch, place, step):
    run = RunFolder(tmp_path / "run")
    killed(command, run, monkeypatch, place, step)
    assert main([*command, f"run_dir={run.path}"]) == 0
    assert [row["step"] for row in numbers(once)] == [2, 3, 4, 6, 6]
    assert numbers(run) == numbers(once)


def test_a_row_is_the_mean_over_its_steps_although_a_validation_lies_between(command, once, tmp_path):
    words = ["callback.recorder.every_steps=1", f"run_dir={tmp_path / 'each'}"]
    assert main([*command, *words]) == 0
    each = [row["train/loss"] for row in RunFolder(tmp_path / "each").rows() if "train/loss" in row]
    of_three = [row["train/loss"] for row in once.rows() if "train/loss" in row]
    assert of_three == pytest.approx([sum(each[:3]) / 3, sum(each[3:]) / 3])


@pytest.fixture(scope="module")
def stopped(command, tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("stopped") / "run")
    assert main([*command, *STOPS, f"run_dir={run.path}"]) == 0
    return run


def test_the_step_at_which_a_validation_ended_the_run_is_saved(stopped, command, capsys):
    assert read_checkpoint(stopped.checkpoints)["global_step"] == stopped.metrics()["train/steps"] == 4
    assert main([*command, *STOPS, f"run_dir={stopped.path}"]) == 0
    assert "training stopped early before" in capsys.readouterr().out


def test_a_run_that_was_stopped_and_then_cut_stays_stopped(stopped, command, tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr("capkit.train.job.finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main([*command, *STOPS, f"run_dir={run.path}"])
    assert main([*command, *STOPS, f"run_dir={run.path}"]) == 0
    assert numbers(run) == numbers(stopped)
    ours, theirs = (read_checkpoint(folder.checkpoints)["state_dict"] for folder in (run, stopped))
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())


def test_a_run_that_is_made_longer_when_it_is_done_goes_on_by_the_schedule_of_its_new_length(
    command, once, tmp_path, capsys
):
    run = RunFolder(tmp_path / "run")
    length = [*command, "callback=[recorder,checkpoints,progress]", "scheduler=linear", "scheduler.warmup=0"]
    assert main([*length, "max_steps=3", f"run_dir={run.path}"]) == 0
    assert main([*length, "max_steps=6", f"run_dir={run.path}"]) == 0
    told = capsys.readouterr().out
    assert "max_steps: 3 -> 6: from step 3 on, learning rate and other schedules are those of the longer run" in told
    assert f"evaluate ckpt={run.path} split=val" in told and "trained 3 steps in" in told
    assert [row["step"] for row in run.current_rows() if "train/loss" in row] == [3, 6]
    rates = {row["step"]: row["train/lr"] for row in run.current_rows() if "train/lr" in row}
    assert rates[6] == pytest.approx(0.0025 * 1 / 6) and rates[3] == pytest.approx(0.0025 * 1 / 3)
    assert run.metrics()["train/steps"] == 6
    assert main([*length, "max_steps=6", f"run_dir={run.path}"]) == 0
    assert "all 6 steps were done before" in capsys.readouterr().out
