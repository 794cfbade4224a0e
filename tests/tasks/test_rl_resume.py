"""task=fit_rl from the command line's `main`: an interrupted run ends as the uninterrupted one, to the last bit."""

import pytest
from interrupted import assert_equal_weights, interrupt_and_resume, numbers
from tiny_fit_run import MODEL

from capkit.checkpoint.files import load_checkpoint
from capkit.cli import main
from capkit.run.folder import RunFolder
from capkit.train.rl.module import RLModule

pytestmark = pytest.mark.integration

DATA = [
    "debug=tiny", "data.train.count=16", "data.val.count=4", "data.test.count=4", "val_every=2",
    "decoding.max_length=6", "callback.checkpoints.every_steps=1", "callback.recorder.every_steps=1", "controls=0",
]  # fmt: skip
REWARDED = [
    "task=fit_rl", "callback=[progress,recorder,checkpoints]", "max_steps=4", "reward=[length]",
    "reward.length.scorer.shortest=1", "reward.length.scorer.longest=2", "objective=self_critical",
    "objective.baseline=running_mean", "objective.num_samples=3", "optimizer.lr=1e-2",
]  # fmt: skip
ADAPTERS = "model.lora={decoder: {rank: 2, targets: [query_key_value]}}"
BY_TOKENS = "reward.length.scorer.units=token"  # the final report has texts alone, which this term cannot score
CASES = {
    "distance_to_a_copy": ["objective.kl=k2", "objective.kl_weight=0.1"],
    "distance_to_adapters_off": ["objective.kl=k1_reward", "objective.kl_weight=0.1", ADAPTERS, BY_TOKENS],
}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The command that goes on from a run of likelihood."""
    path = tmp_path_factory.mktemp("rl")
    caches = [f"data.{split}.cache_dir={path / 'scenes'}" for split in ("train", "val", "test")]
    assert main([*DATA, *MODEL, *caches, "max_steps=2", f"run_dir={path / 'mle'}"]) == 0
    return [*DATA, *caches, *REWARDED, f"init_from={path / 'mle'}"]


def state(run):
    return load_checkpoint(run.checkpoints / "step-00000004.ckpt")


@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_run_by_rewards_ends_as_the_uninterrupted_one(start, tmp_path, monkeypatch, case):
    command = [*start, *CASES[case]]
    assert main([*command, f"run_dir={tmp_path / 'once'}"]) == 0
    interrupt_and_resume([*command, f"run_dir={tmp_path / 'again'}"], RLModule, monkeypatch)

    once, again = RunFolder(tmp_path / "once"), RunFolder(tmp_path / "again")
    ours, theirs = (numbers(run, "train/loss", "train/grad_norm", "rl/", "reward/") for run in (again, once))
    assert ours == theirs and len(theirs) == 4
    assert {"rl/kl", "rl/baseline", "rl/logprob_gap", "reward/length", "reward/length_weighted"} <= theirs[0].keys()
    assert abs(theirs[3]["rl/kl"]) > 1e-4
    assert_equal_weights(again, once)
    ours, theirs = state(again), state(once)
    assert ours["rl"] == theirs["rl"]
    assert theirs["rl"]["objective"]["count"] == 4
    assert (again.predictions / "test.json").read_text() == (once.predictions / "test.json").read_text()
    initial = [{k: v for k, v in run.metrics().items() if k.startswith("test/initial")} for run in (once, again)]
    assert initial[0] == initial[1] != {}
