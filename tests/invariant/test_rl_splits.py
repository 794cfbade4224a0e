"""A step of reinforcement learning is the same however its batch is cut: micro-batches, rollouts, 2 processes x 4."""

import functools
from dataclasses import replace

import pytest
import torch
from rl_steps import NUM_IMAGES, OBJECTIVES, Outcome, Overlap, differences, train

from capkit.optim.schedules import Linear
from capkit.scorers.reward import Reward, RewardTerm
from capkit.scorers.text_rules import Length
from capkit.testing.distributed import run_distributed

SIZES = (None, 2)
NORMALISED = ("greedy", "normalised")


@functools.cache
def whole(objective: str) -> Outcome:
    return train(objective)


def several(cases: list[tuple]) -> list[Outcome]:
    """Runs in one process, the last with normalised terms: starting Python takes longer than a run."""
    runs = [train(objective, "ddp", micro_batch_size=size) for objective, size in cases]
    return [*runs, with_normalised_terms("ddp")]


def normalised_terms() -> Reward:
    """Terms that depend on the global batch, with weights that move."""
    length = RewardTerm(
        Length(shortest=1, longest=2, fall_off=4), weight=Linear(1.0, 0.0), normalize="batch", clip=(-1, 1)
    )
    return Reward({"overlap": RewardTerm(Overlap(), normalize="batch"), "length": length})


def with_normalised_terms(strategy: str) -> Outcome:
    return train("greedy", strategy, reward=normalised_terms())


@pytest.fixture(scope="module")
def two_ranks() -> dict[tuple, list[Outcome]]:
    cases = [(objective, size) for objective in OBJECTIVES for size in SIZES]
    outcomes = run_distributed(several, 2, cases, timeout_s=300)
    return {case: list(ranks) for case, *ranks in zip([*cases, NORMALISED], *outcomes, strict=True)}


def same_rollouts(ours: list[dict], theirs: list[dict]) -> bool:
    """The same token ids of every image at each step, and the same advantages."""
    return all(
        one.keys() == other.keys()
        and all(
            one[key][0] == other[key][0]
            and torch.allclose(torch.tensor(one[key][1]), torch.tensor(other[key][1]), atol=1e-4, equal_nan=True)
            for key in one
        )
        for one, other in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("micro_batch_size", "rollout_batch_size"), [(1, 3), (3, 1)])
def test_micro_batches_and_partial_rollouts_equal_the_whole_batch(objective, micro_batch_size, rollout_batch_size):
    cut = train(objective, micro_batch_size=micro_batch_size, rollout_batch_size=rollout_batch_size)
    assert differences(whole(objective), cut) == []
    assert same_rollouts(whole(objective).rollouts, cut.rollouts)


@pytest.mark.integration
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("micro_batch_size", SIZES)
def test_two_processes_equal_one_token_for_token(two_ranks, objective, micro_batch_size):
    first, second = two_ranks[objective, micro_batch_size]
    assert first.rows == second.rows
    together = [one | other for one, other in zip(first.rollouts, second.rollouts, strict=True)]
    assert all(len(step) == NUM_IMAGES for step in together)
    assert same_rollouts(whole(objective).rollouts, together)
    assert differences(whole(objective), first) == []


@pytest.mark.integration
def test_rewards_normalised_over_the_batch_are_those_of_one_process(two_ranks):
    alone = with_normalised_terms("auto")
    first, second = two_ranks[NORMALISED]
    together = [one | other for one, other in zip(first.rollouts, second.rollouts, strict=True)]
    assert same_rollouts(alone.rollouts, together)
    assert differences(alone, first) == []


def test_the_cases_see_missing_rewards_ends_and_caps():
    rows = [row for objective in OBJECTIVES for row in whole(objective).rows]
    assert max(row["reward/failed"] for row in rows) > 0
    assert 0 < min(row["rl/hit_max_length"] for row in rows) < 1
    assert all(row["grad_norm"] > 1e-3 for row in rows)


def test_another_seed_gives_other_captions_and_would_be_noticed():
    other = train("greedy", seed=1)
    assert not same_rollouts(whole("greedy").rollouts, other.rollouts)
    assert "loss of step 0" in differences(whole("greedy"), other)


def under_zero() -> Outcome:
    return train("dico", "zero2", micro_batch_size=3)


@pytest.mark.nightly
def test_dico_under_zero_2_equals_one_process():
    for outcome in run_distributed(under_zero, 2, timeout_s=300):
        known = whole("dico") if outcome.weights else replace(whole("dico"), weights={})  # rank 0 alone has them all
        assert differences(known, outcome) == []
