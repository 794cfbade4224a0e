"""A run by rewards that is asked to stop, in a rollout and then in a validation, ends as the undisturbed one."""

import os
import signal

import pytest
import torch
from tiny_fit_run import MODEL

from capkit.checkpoint.files import load_checkpoint
from capkit.cli import main
from capkit.errors import STOPPED_STATUS
from capkit.run.folder import RunFolder
from capkit.train.captioner_module import CaptionerModule
from capkit.train.rl.module import RLModule

pytestmark = pytest.mark.integration

DATA = [
    "debug=tiny", "data.train.count=16", "data.val.count=4", "data.test.count=4", "val_every=2", "controls=0",
    "data.eval_batch_size=2", "decoding.max_length=6", "metric=[bleu]",
]  # fmt: skip
REWARDED = [
    "task=fit_rl", "callback=[progress,recorder,checkpoints,preemption]", "max_steps=4", "reward=[length]",
    "reward.length.scorer.shortest=1", "reward.length.scorer.longest=2", "objective=self_critical",
    "objective.baseline=running_mean", "objective.num_samples=3", "optimizer.lr=1e-2", "rollout_batch_size=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    path = tmp_path_factory.mktemp("preempted")
    caches = [f"data.{split}.cache_dir={path / 'scenes'}" for split in ("train", "val", "test")]
    assert main([*DATA, *MODEL, *caches, "max_steps=1", "max_epochs=null", f"run_dir={path / 'mle'}"]) == 0
    return [*DATA, *caches, *REWARDED, f"init_from={path / 'mle'}"]


def stop(command):
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == STOPPED_STATUS


def stop_in_rollout(command, monkeypatch, step):
    """The signal comes with the first of four images that are sampled; gives how many were."""
    sampled = []
    sample = RLModule.sample

    def signalled(self, batch, decoding, with_greedy):
        generate = self.model.generate

        def count(*arguments):
            sampled.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
            return generate(*arguments)

        if self.global_step == step:
            self.model.generate = count
        return sample(self, batch, decoding, with_greedy)

    with monkeypatch.context() as patched:
        patched.setattr(RLModule, "sample", signalled)
        stop(command)
    return len(sampled)


def stop_in_validation(command, monkeypatch, step):
    """The signal comes with the first of two batches; gives how many were done."""
    done = []
    validate = CaptionerModule.validation_step

    def signalled(self, batch, batch_idx):
        if self.global_step == step:
            done.append(1)
            os.kill(os.getpid(), signal.SIGUSR1)
        return validate(self, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(CaptionerModule, "validation_step", signalled)
        stop(command)
    return len(done)


def steps_saved(run):
    return sorted(path.name for path in run.checkpoints.glob("step-*"))


def rows(run):
    """What was logged at each step, validations too; wall time left out."""
    timed = ("time", "attempt", "train/images_per_second")
    return [{name: value for name, value in row.items() if name not in timed} for row in run.current_rows()]


def test_a_run_stopped_in_a_rollout_and_in_a_validation_ends_as_the_undisturbed_one(command, tmp_path, monkeypatch):
    once, again = RunFolder(tmp_path / "once"), RunFolder(tmp_path / "again")
    assert main([*command, f"run_dir={once.path}"]) == 0
    preempted = [*command, f"run_dir={again.path}"]

    assert stop_in_rollout(preempted, monkeypatch, step=1) == 1
    assert steps_saved(again) == ["step-00000001.ckpt"]
    assert stop_in_validation(preempted, monkeypatch, step=2) == 1
    assert steps_saved(again) == ["step-00000001.ckpt", "step-00000002.ckpt"]
    assert not any(row["step"] == 2 and "val/bleu_4" in row for row in again.rows())
    assert main(preempted) == 0

    assert rows(again) == rows(once)
    assert [row["step"] for row in rows(once) if "val/bleu_4" in row] == [0, 2, 4]
    ours, theirs = (load_checkpoint(run.checkpoints / "step-00000004.ckpt") for run in (again, once))
    assert all(torch.equal(value, ours["state_dict"][name]) for name, value in theirs["state_dict"].items())
    assert ours["rl"] == theirs["rl"]
    assert (again.predictions / "test.json").read_text() == (once.predictions / "test.json").read_text()
