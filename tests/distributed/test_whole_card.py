"""Everything at once through `python train.py`: rewards of a trained judge and of self-retrieval, bags that grow, LoRA,
ZeRO-2 in two processes, wandb offline; killed once, started again, and equal to the run that was left alone."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.faults.runs import STRATEGIES, Starts, batches, differences
from capkit.checkpoint.loading import read_checkpoint
from capkit.cli import main
from capkit.run.folder import RunFolder

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SHORT = [
    "max_steps=8", "val_every=4", "callback.checkpoints.every_steps=2", "callback.recorder.every_steps=1",
    "curriculum.stages={3: hard-2, 6: hard-4}", "logger=[wandb]",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("card")


@pytest.fixture(scope="module")
def words(folder):
    starts = Starts(folder)
    for done, words in starts.commands():
        assert main(words) == 0 and done.exists()
    return [*starts.words("rl"), *SHORT, *STRATEGIES["zero2"]]


ENVIRONMENT = {"PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}


def start(words, run_dir):
    command = [sys.executable, str(ROOT / "train.py"), *words, f"run_dir={run_dir}"]
    with Path(f"{run_dir}.log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **ENVIRONMENT})


def finish(words, run_dir):
    """The same command, whose ranks this process starts: it has imported all already."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "CAPKIT_COMMAND": "", "TORCH_CPP_LOG_LEVEL": "ERROR"}.items():
            patch.setenv(name, value)  # the last two, which it sets, are as before afterwards
        assert main([*words, f"run_dir={run_dir}"]) == 0
    return RunFolder(run_dir)


def kill(launcher):
    """kill -9 of the launcher, with which its ranks end at once, and of what they leave; how many ranks there were."""
    everyone = psutil.Process(launcher.pid).children(recursive=True)
    ranks = [one for one in everyone if "capkit.distributed.launcher" in one.cmdline()]
    launcher.kill()
    _, left = psutil.wait_procs(ranks, timeout=10)
    for one in {*left, *everyone}:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    assert launcher.wait(10) == -signal.SIGKILL and not left
    return len(ranks)


@pytest.fixture(scope="module")
def once(words, folder):
    return finish(words, folder / "once")


@pytest.fixture(scope="module")
def again(words, folder):
    """Killed once it has saved step 4, somewhere in what follows: its validation, a rollout, an update, a save."""
    run = RunFolder(folder / "again")
    process = start(words, run.path)
    deadline = time.monotonic() + 300
    while not (run.checkpoints / "step-00000004.ckpt").exists():
        assert process.poll() is None and time.monotonic() < deadline, Path(f"{run.path}.log").read_text()[-3000:]
        time.sleep(0.01)
    assert kill(process) == 2
    return finish(words, run.path)


def test_a_killed_run_of_the_whole_card_ends_as_the_undisturbed_one(once, again):
    assert [row["resumed_from"] for row in again.rows() if "resumed_from" in row] in ([4], [6])
    assert differences(once, again) == []


def test_the_card_is_whole(once):
    rows = [row for row in once.rows() if "train/loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert {"reward/clip_score", "reward/self_retrieval", "rl/kl", "rl/baseline"} <= rows[0].keys()
    assert rows[0]["reward/self_retrieval_pool"] == 8  # of both ranks
    assert (once.path / "curriculum.json").exists()
    seen = batches(once)
    assert set(seen) == {"0", "1"} and all(len(steps) == 8 for steps in seen.values())
    weights = read_checkpoint(once.checkpoints)["state_dict"]
    assert all(value.numel() for value in weights.values())
    adapters = {name: value for name, value in weights.items() if name.startswith("model.decoder.")}
    assert adapters and all("lora_" in name for name in adapters)
    assert all(value.any() for name, value in adapters.items() if "lora_B" in name)  # they begin at 0


def test_every_attempt_is_a_wandb_run_offline(once, again):
    assert [len(list(run.path.glob("wandb/offline-run-*"))) for run in (once, again)] == [1, 2]
