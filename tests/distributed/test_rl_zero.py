"""Reinforcement learning under every ZeRO stage does what DDP does: same captions, same numbers, same weights."""

from typing import Any

import pytest
from rl_steps import Outcome, differences, train
from tiers import chosen_tier

from capkit.testing.distributed import run_distributed

pytestmark = pytest.mark.integration

STAGES = ("zero1", "zero2", "zero3")
CASES: dict[str, dict[str, Any]] = {
    "greedy": {"objective": "greedy", "micro_batch_size": 2},
    "truncated": {"objective": "leave_one_out"},
    "running_mean": {"objective": "running_mean", "micro_batch_size": 3, "rollout_batch_size": 2},
    "ppo_k1_reward": {"objective": "ppo_k1_reward", "micro_batch_size": 2},
    "ppo_k3": {"objective": "ppo_k3"},
    "weighted_sum": {"objective": "weighted_sum", "micro_batch_size": 2},
    "adapters_k1_reward": {"objective": "ppo_k1_reward", "lora": True, "micro_batch_size": 2},
    "adapters_k2": {"objective": "ppo_k2", "lora": True, "micro_batch_size": 2},
    "ppo_k1_advantage": {"objective": "ppo_k1_advantage", "micro_batch_size": 2},
}


# Each case under one stage, each stage with several cases; the rest is nightly.
EACH_ONCE = [(case, STAGES[number % len(STAGES)]) for number, case in enumerate(CASES)]
REST = [(case, stage) for case in CASES for stage in STAGES if (case, stage) not in EACH_ONCE]


def train_all(pairs: list[tuple[str, str]]) -> dict[tuple[str, str], Outcome]:
    """All runs in one process: starting Python and DeepSpeed takes longer than a run."""
    return {(case, strategy): train(strategy=strategy, **CASES[case]) for case, strategy in pairs}


@pytest.fixture(scope="module")
def runs(pytestconfig) -> list[dict[tuple[str, str], Outcome]]:
    rest = REST if chosen_tier(pytestconfig) > 1 else []
    return run_distributed(train_all, 2, [*((case, "ddp") for case in CASES), *EACH_ONCE, *rest], timeout_s=500)


@pytest.mark.parametrize(
    ("case", "stage"), [*EACH_ONCE, *(pytest.param(*pair, marks=pytest.mark.nightly) for pair in REST)]
)
def test_a_zero_stage_does_what_ddp_does(runs, case, stage):
    for rank in (0, 1):
        ours, theirs = runs[rank][case, stage], runs[rank][case, "ddp"]
        for step, (one, other) in enumerate(zip(ours.rollouts, theirs.rollouts, strict=True)):
            assert {key: tokens for key, (tokens, _) in one.items()} == {
                key: tokens for key, (tokens, _) in other.items()
            }, step
    assert runs[0][case, stage].rows == runs[1][case, stage].rows
    assert differences(runs[0][case, stage], runs[0][case, "ddp"]) == []
    assert len(runs[0][case, stage].weights) >= 4


@pytest.mark.parametrize("case", CASES)
def test_ddp_does_what_one_process_does(runs, case):
    assert differences(runs[0][case, "ddp"], train(**CASES[case])) == []
