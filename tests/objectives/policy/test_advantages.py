"""Baselines, whitening, and what becomes of rewards that are not there."""

import copy
import math

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from capkit.errors import UsageError
from capkit.objectives.policy.advantages import Advantages, RunningBaseline, greedy, group, leave_one_out, whiten
from capkit.testing.distributed import run_distributed

REWARDS = torch.tensor([[1.0, 0.4, 0.7, 0.1, 0.8]])  # mean .6, deviations .4 -.2 .1 -.5 .2
NAN = math.nan


def close(actual, expected, **tolerance):
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.double(), expected, **{"atol": 1e-6, "rtol": 0.0, "equal_nan": True, **tolerance})


# -- golden values


def test_greedy_is_the_difference_to_the_greedy_captions_reward():
    close(greedy(REWARDS, torch.tensor([0.6])), [[0.4, -0.2, 0.1, -0.5, 0.2]])


def test_leave_one_out_by_hand():
    # The first: the other four have (.4 + .7 + .1 + .8) / 4 = .5, so 1 - .5 = .5. In general deviation * 5 / 4.
    close(leave_one_out(REWARDS), [[0.5, -0.25, 0.125, -0.625, 0.25]])


def test_group_by_hand_with_the_population_deviation():
    # Variance (.16 + .04 + .01 + .25 + .04) / 5 = .1, deviation .316228; .4 / .316228 = 1.264911.
    # The sample deviation (.5 / 4)^.5 = .353553 would give 1.131371.
    close(group(REWARDS), [[1.264911, -0.632456, 0.316228, -1.581139, 0.632456]])


def test_group_without_the_division_is_the_difference_to_the_mean():
    close(group(REWARDS, divide_by_std=False), [[0.4, -0.2, 0.1, -0.5, 0.2]])


def test_running_mean_by_hand():
    # Before any batch 0; then 0 + (2 - 0) / 1 = 2; 2 + (1 - 2) / 2 = 1.5; 1.5 + (3 - 1.5) / 3 = 2.
    baseline = RunningBaseline("running_mean")
    assert [baseline(torch.full((2, 3), cost)) for cost in (2.0, 1.0, 3.0)] == [0.0, 2.0, 1.5]
    assert baseline.value == pytest.approx(2.0)


def test_moving_average_by_hand_starts_at_the_first_batch():
    # 2; then .9 * 2 + .1 * 1 = 1.9; after 3: .9 * 1.9 + .1 * 3 = 2.01.
    baseline = RunningBaseline("ema", decay=0.9)
    found = [baseline(torch.full((1, 2), cost)) for cost in (2.0, 1.0, 3.0)]
    assert found == pytest.approx([2.0, 2.0, 1.9])
    assert baseline.value == pytest.approx(2.01)


def test_whitening_by_hand():
    # 1 2 3 6: mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5, deviation 1.870829.
    close(whiten(torch.tensor([[1.0, 2.0], [3.0, 6.0]])), [[-1.069045, -0.534522], [0.0, 1.603567]])


def test_no_baseline_leaves_rewards_as_they_are():
    close(Advantages("none")(REWARDS, None), REWARDS.double())


@pytest.mark.parametrize("baseline", ["running_mean", "ema"])
def test_a_running_baseline_is_subtracted_from_the_next_batch(baseline):
    advantages = Advantages(baseline, decay=0.5)
    advantages(REWARDS, None)
    close(advantages(REWARDS, None), [[0.4, -0.2, 0.1, -0.5, 0.2]])


# -- properties

groups = st.integers(2, 7).flatmap(
    lambda k: st.lists(st.lists(st.floats(-100, 100, width=32), min_size=k, max_size=k), min_size=1, max_size=4)
)


@given(groups)
def test_leave_one_out_advantages_of_an_image_sum_to_zero(rewards):
    assert leave_one_out(torch.tensor(rewards)).sum(-1).abs().max() < 1e-9


@given(groups)
def test_leave_one_out_equals_the_naive_loop(rewards):
    naive = [[r - sum(x for j, x in enumerate(row) if j != k) / (len(row) - 1) for k, r in enumerate(row)]
             for row in rewards]  # fmt: skip
    close(leave_one_out(torch.tensor(rewards)), naive, rtol=1e-9)


@given(groups)
def test_group_equals_the_naive_loop(rewards):
    naive = []
    for row in rewards:
        mean = sum(row) / len(row)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in row) / len(row))
        naive.append([(x - mean) / (deviation + 1e-8) for x in row])
    close(group(torch.tensor(rewards)), naive, atol=1e-4)


@pytest.mark.parametrize("baseline", ["greedy", "leave_one_out", "group"])
@pytest.mark.parametrize("whitened", [False, True])
def test_a_constant_added_to_all_rewards_changes_no_advantage(baseline, whitened):
    rewards = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    of_greedy = rewards.mean(-1) + 0.1
    advantages = Advantages(baseline, whiten=whitened)
    torch.testing.assert_close(
        advantages(rewards + 5, of_greedy + 5), advantages(rewards, of_greedy), atol=2e-5, rtol=0.0
    )


@pytest.mark.parametrize("reward", [0.1, 1 / 3, -7.7, 1e-20, 12345.678])
@pytest.mark.parametrize("baseline", ["leave_one_out", "group"])
@pytest.mark.parametrize("num_samples", [2, 3, 5, 7])
def test_a_group_without_spread_has_advantages_of_exactly_zero(reward, baseline, num_samples):
    rewards = torch.full((2, num_samples), reward, dtype=torch.float32)
    assert (Advantages(baseline)(rewards, None) == 0).all()


def test_a_group_without_spread_keeps_zero_beside_groups_with_spread_and_missing_rewards():
    rewards = torch.tensor([[0.1, 0.1, 0.1], [0.2, 0.9, 0.4], [0.3, NAN, 0.3]])
    for baseline in ("leave_one_out", "group"):
        advantages = Advantages(baseline)(rewards, None)
        assert (advantages[0] == 0).all()
        assert advantages[1].abs().min() > 0
        assert advantages[2, [0, 2]].tolist() == [0.0, 0.0]


# -- rewards that could not be scored


@pytest.mark.parametrize("baseline", ["leave_one_out", "group", "running_mean", "ema", "none", "greedy"])
@pytest.mark.parametrize("whitened", [False, True])
def test_without_a_reward_the_others_have_the_advantages_they_would_have_had_alone(baseline, whitened):
    scored = torch.tensor([[0.2, 0.9, 0.4], [0.5, 0.1, 0.8]])
    with_missing = torch.cat([scored[:, :1], torch.full((2, 1), NAN), scored[:, 1:]], dim=1)
    of_greedy = torch.tensor([0.3, 0.6])
    first, second = Advantages(baseline, whiten=whitened), Advantages(baseline, whiten=whitened)
    for _ in range(2):  # the second batch meets a running baseline that has a value
        alone, among = first(scored, of_greedy), second(with_missing, of_greedy)
        assert among[:, 1].isnan().all()
        assert torch.equal(among[:, [0, 2, 3]], alone)


def test_an_image_whose_greedy_caption_has_no_reward_is_left_out():
    advantages = greedy(torch.ones(2, 3), torch.tensor([NAN, 0.5]))
    assert advantages[0].isnan().all()
    assert (advantages[1] == 0.5).all()


def test_the_only_sample_with_a_reward_has_nothing_to_be_compared_with():
    rewards = torch.tensor([[0.4, NAN, NAN]])
    assert leave_one_out(rewards).isnan().all()
    assert group(rewards)[0, 0] == 0


@pytest.mark.parametrize("kind", ["running_mean", "ema"])
def test_a_batch_without_any_reward_leaves_the_running_baseline_alone(kind):
    baseline = RunningBaseline(kind)
    baseline(torch.tensor([[1.0, 3.0]]))
    before = copy.deepcopy(baseline.state_dict())
    assert baseline(torch.full((2, 2), NAN)) == before["value"]
    assert baseline.state_dict() == before


# -- state and ranks

BATCHES = torch.randn(5, 8, 3, generator=torch.Generator().manual_seed(3))
BATCHES[2, 5, 1] = NAN


@pytest.mark.parametrize("baseline", ["running_mean", "ema"])
def test_a_running_baseline_goes_on_exactly_from_its_state(baseline):
    whole, first, second = (Advantages(baseline) for _ in range(3))
    expected = [whole(batch, None) for batch in BATCHES]
    for batch in BATCHES[:2]:
        first(batch, None)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for batch, wanted in zip(BATCHES[2:], expected[2:], strict=True):
        assert torch.equal(second(batch, None).nan_to_num(9.0), wanted.nan_to_num(9.0))
    assert second.state_dict() == whole.state_dict()


def advantages_of_this_rank(counts: list[int], baseline: str, whitened: bool):
    """This rank's images alone, `counts[rank]` of the eight, in order."""
    start = sum(counts[: dist.get_rank()])
    advantages = Advantages(baseline, whiten=whitened)
    found = [advantages(batch[start : start + counts[dist.get_rank()]], None) for batch in BATCHES]
    return torch.stack(found), advantages.state_dict()


def advantages_of_all_kinds(counts: list[int]):
    kinds = ("leave_one_out", "running_mean", "ema", "none")
    return {(kind, w): advantages_of_this_rank(counts, kind, w) for kind in kinds for w in (False, True)}


@pytest.mark.integration
@pytest.mark.parametrize("counts", [[4, 4], [7, 1], [8, 0]])
def test_two_processes_have_the_advantages_and_the_baseline_of_one(counts):
    ranks = run_distributed(advantages_of_all_kinds, 2, counts)
    for (kind, whitened), (first, state) in ranks[0].items():
        second, state_again = ranks[1][kind, whitened]
        alone = Advantages(kind, whiten=whitened)
        expected = torch.stack([alone(batch, None) for batch in BATCHES])
        torch.testing.assert_close(torch.cat([first, second], dim=1), expected, equal_nan=True)
        assert state == state_again
        assert state == pytest.approx(alone.state_dict())


def test_whitening_each_rank_alone_would_be_noticed():
    halves = torch.cat([whiten(BATCHES[0, :4]), whiten(BATCHES[0, 4:])])
    assert not torch.allclose(halves, whiten(BATCHES[0]), atol=1e-2)


# -- wrong input


def test_an_unknown_baseline_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="leave_one_out"):
        Advantages("leave_on_out")


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_forgets_nothing_or_less_is_refused(decay):
    with pytest.raises(UsageError, match="decay"):
        Advantages("ema", decay=decay)
