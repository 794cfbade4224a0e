"""A checkpoint written under any strategy is one file: resumed exactly, under another strategy, or by one process."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from steps import MODULES, STEPS, Keep, batches, loader, train, trainer_of

from capkit.testing import run_distributed

pytestmark = pytest.mark.slow

HALF = STEPS // 2
STRATEGIES = ("ddp", "zero1", "zero2", "zero3")


class Save(pl.Callback):
    def __init__(self, path: Path):
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == HALF:
            trainer.save_checkpoint(self.path)


def write(strategy: str, path: Path) -> list[tuple[float, float]]:
    """All steps, with a checkpoint half way."""
    keep = Keep()
    trainer_of(strategy, [keep, Save(path)]).fit(MODULES["dual_encoder"](2), loader(batches()))
    return keep.outcome.rows


def resume(strategy: str, path: Path) -> list[tuple[float, float]]:
    """The steps after the checkpoint, from a model that starts as another one."""
    keep = Keep()
    module = MODULES["dual_encoder"](2)
    for parameter in module.parameters():
        parameter.data = parameter.data + 0.1 if parameter.requires_grad else parameter.data
    trainer = trainer_of(strategy, [keep])
    trainer.fit(module, loader(batches()[HALF:]), ckpt_path=path, weights_only=True)
    return keep.outcome.rows


def write_and_resume(folder: Path) -> dict[str, tuple[list, list, list]]:
    """Of each strategy: rows of the whole run, of its resumed half, and of that half under ZeRO-3."""
    results = {}
    for strategy in STRATEGIES:
        path = folder / f"{strategy}.ckpt"
        whole = write(strategy, path)
        results[strategy] = whole, resume(strategy, path), resume("zero3", path)
    return results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def runs(folder):
    return run_distributed(write_and_resume, 2, folder, timeout_s=400)[0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_resumed_run_continues_to_the_last_bit(runs, strategy):
    whole, resumed, _ = runs[strategy]
    assert len(whole) == STEPS
    assert resumed == whole[HALF:]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_goes_on_under_another_strategy(runs, strategy):
    whole, _, under_zero3 = runs[strategy]
    torch.testing.assert_close(torch.tensor(under_zero3), torch.tensor(whole[HALF:]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_goes_on_in_one_process(runs, folder, strategy):
    resumed = resume("auto", folder / f"{strategy}.ckpt")
    torch.testing.assert_close(torch.tensor(resumed), torch.tensor(runs[strategy][0][HALF:]), rtol=1e-4, atol=0)


def test_a_resume_without_the_optimizers_state_would_be_noticed(runs, folder):
    checkpoint = torch.load(folder / "zero2.ckpt", weights_only=True)
    for state in checkpoint["optimizer_states"][0]["state"].values():
        state["exp_avg"].zero_()
    torch.save(checkpoint, folder / "forgotten.ckpt")
    resumed = torch.tensor(resume("auto", folder / "forgotten.ckpt"))
    expected = torch.tensor(runs["zero2"][0][HALF:])
    assert not torch.allclose(resumed, expected, rtol=1e-4, atol=0)


def test_a_checkpoint_holds_whole_trained_weights_and_no_frozen_ones(runs, folder):
    wanted = train("dual_encoder", "auto", 2).weights
    for strategy in STRATEGIES:
        state = torch.load(folder / f"{strategy}.ckpt", weights_only=True)["state_dict"]
        assert {name: value.shape for name, value in state.items()} == {k: v.shape for k, v in wanted.items()}
