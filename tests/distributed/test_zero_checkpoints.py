"""A checkpoint of any strategy and number of ranks is resumed exactly, under another strategy, on another number.

Saved on two ranks and on three, with 12 images a step, which one, two and three ranks share evenly.
"""

from pathlib import Path

import pytest
import torch
from steps import MODULES, STEPS, Keep, batches_of_all_ranks, loader, trainer_of

from capkit.checkpoint.files import load_checkpoint, write_checkpoint
from capkit.checkpoint.lightning_io import use_folders
from capkit.distributed.collectives import rank, world_size
from capkit.testing.distributed import run_distributed
from capkit.train.callbacks.checkpoints import Checkpoints
from capkit.types import CaptionBatch

pytestmark = pytest.mark.integration

HALF = STEPS // 2
MICRO_BATCH = 6  # two on one rank: under ZeRO-3 each costs DeepSpeed's time to gather every weight
STRATEGIES = ("ddp", "zero1", "zero2", "zero3")
BY_THREE = ("zero2", "zero3")  # saved on three ranks too: the others divide nothing, or as stage 2 does


def batches(start: int = 0) -> list[CaptionBatch]:
    """This rank's share of 12 images a step, after the first steps."""
    whole = [batch.select([*range(8), *range(3, 7)]) for batch in batches_of_all_ranks()]
    return [batch.select(list(range(rank(), 12, world_size()))) for batch in whole[start:]]


def saved(folder: Path, strategy: str) -> Path:
    return folder / strategy / f"step-{HALF:08d}.ckpt"


def write(folder: Path, strategy: str) -> list[tuple[float, float]]:
    """All steps, with a checkpoint half way."""
    keep, checkpoints = Keep(), Checkpoints(every_steps=HALF)
    checkpoints.attach(folder / strategy)
    trainer_of(strategy, [keep, checkpoints]).fit(MODULES["dual_encoder"](MICRO_BATCH), loader(batches()))
    return keep.outcome.rows


def resume(path: Path, strategy: str) -> list[tuple[float, float]]:
    """The steps after the checkpoint, from a model that starts as another one."""
    keep = Keep()
    module = MODULES["dual_encoder"](MICRO_BATCH)
    for parameter in module.parameters():
        parameter.data = parameter.data + 0.1 if parameter.requires_grad else parameter.data
    trainer = trainer_of(strategy, [keep])
    use_folders(trainer)
    trainer.fit(module, loader(batches(HALF)), ckpt_path=path, weights_only=True)
    return keep.outcome.rows


def write_and_resume(folder: Path) -> dict[str, tuple[list, list, list]]:
    """Of each strategy: rows of the whole run, of its resumed half, and of that half under ZeRO-3."""
    results = {}
    for strategy in STRATEGIES:
        whole = write(folder, strategy)
        path = saved(folder, strategy)
        results[strategy] = whole, resume(path, strategy), resume(path, "zero3")
    return results


def resume_and_write(two: Path, three: Path) -> tuple[dict[str, list], dict[str, list]]:
    """Of each strategy, rows of the half that two ranks saved; of some also those of a whole run."""
    resumed = {strategy: resume(saved(two, strategy), strategy) for strategy in STRATEGIES}
    return resumed, {strategy: write(three, strategy) for strategy in BY_THREE}


def resume_alone(two: Path, three: Path) -> tuple[dict[str, list], dict[str, list]]:
    return (
        {strategy: resume(saved(two, strategy), strategy) for strategy in STRATEGIES},
        {strategy: resume(saved(three, strategy), strategy) for strategy in BY_THREE},
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return [tmp_path_factory.mktemp(f"saved_by_{number}") for number in ("two", "three")]


@pytest.fixture(scope="module")
def runs(folders):
    return run_distributed(write_and_resume, 2, folders[0], timeout_s=400)[0]


@pytest.fixture(scope="module")
def on_three_ranks(runs, folders):
    return run_distributed(resume_and_write, 3, *folders, timeout_s=400)[0]


@pytest.fixture(scope="module")
def on_one_rank(on_three_ranks, folders):
    return run_distributed(resume_alone, 1, *folders, timeout_s=400)[0]


def assert_same(ours, theirs):
    """Losses within 1e-5; norms of the gradient, which are larger, within 1e-4 of each."""
    (losses, norms), (other_losses, other_norms) = torch.tensor(ours).T, torch.tensor(theirs).T
    torch.testing.assert_close(losses, other_losses, rtol=0, atol=1e-5)
    torch.testing.assert_close(norms, other_norms, rtol=1e-4, atol=0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_resumed_run_continues_to_the_last_bit(runs, strategy):
    whole, resumed, _ = runs[strategy]
    assert len(whole) == STEPS
    assert resumed == whole[HALF:]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_goes_on_under_another_strategy(runs, strategy):
    whole, _, under_zero3 = runs[strategy]
    assert_same(under_zero3, whole[HALF:])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_two_ranks_saved_goes_on_with_three_and_with_one_under_the_same_strategy(
    runs, on_three_ranks, on_one_rank, strategy
):
    assert_same(on_three_ranks[0][strategy], runs[strategy][0][HALF:])
    assert_same(on_one_rank[0][strategy], runs[strategy][0][HALF:])


@pytest.mark.parametrize("strategy", BY_THREE)
def test_what_three_ranks_saved_goes_on_with_one(on_three_ranks, on_one_rank, strategy):
    assert_same(on_one_rank[1][strategy], on_three_ranks[1][strategy][HALF:])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_goes_on_in_one_process_without_any_strategy(runs, folders, strategy):
    assert_same(resume(saved(folders[0], strategy), "auto"), runs[strategy][0][HALF:])


def test_a_resume_without_the_optimizers_state_would_be_noticed(runs, folders, tmp_path):
    checkpoint = load_checkpoint(saved(folders[0], "zero2"))
    for state in checkpoint["optimizer_states"][0]["state"].values():
        state["exp_avg"].zero_()
    write_checkpoint(checkpoint, tmp_path / "step-00000002.ckpt")
    with pytest.raises(AssertionError):
        assert_same(resume(tmp_path / "step-00000002.ckpt", "auto"), runs["zero2"][0][HALF:])


def test_a_checkpoint_holds_whole_trained_weights_and_no_frozen_ones(runs, folders):
    wanted = MODULES["dual_encoder"](MICRO_BATCH).state_dict()
    for strategy in STRATEGIES:
        state = load_checkpoint(saved(folders[0], strategy))["state_dict"]
        assert {name: value.shape for name, value in state.items()} == {k: v.shape for k, v in wanted.items()}
