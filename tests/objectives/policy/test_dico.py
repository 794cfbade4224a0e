"""DiCO: its worked value, a naive version, DPO where there are two captions, and who is compared with whom."""

import math

import pytest
import torch

from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.objectives.policy.base import PolicyObjective
from capkit.objectives.policy.dico import DiCO
from capkit.objectives.preference.dpo import DPO

NAN = math.nan


def loss_of(objective, logprobs, reference, rewards, mask=None):
    """The mean loss, the logged sums and the weights of the captions, as RLModule calls the objective."""
    mask = torch.ones_like(logprobs, dtype=torch.bool) if mask is None else mask
    weights = objective.advantages(rewards, None)
    learned = mask & ~weights.isnan()[..., None]
    loss, sums = objective.loss(logprobs, reference, weights.nan_to_num(0.0), learned)
    return loss / objective.num_targets(learned).clamp(min=1), sums, weights


def captions(images=4, samples=5, length=6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shape = (images, samples, length)
    logprobs, reference = (-3 * torch.rand(shape, generator=draw, dtype=torch.double) for _ in range(2))
    mask = torch.arange(length) < torch.randint(1, length + 1, (images, samples, 1), generator=draw)
    rewards = 0.8 + 0.05 * torch.rand(images, samples, generator=draw)
    rewards[1, 2], rewards[2, :4], rewards[3] = NAN, NAN, 0.7  # one, all but one, and no difference
    return logprobs.requires_grad_(), reference, rewards, mask


def naive(logprobs, reference, rewards, mask, beta, tau):
    """One image, one caption and one token at a time."""
    losses = []
    for image in range(len(logprobs)):
        known = [k for k in range(rewards.shape[1]) if not math.isnan(rewards[image, k])]
        values = {k: float(rewards[image, k]) for k in known}
        if len(known) < 2 or len(set(values.values())) == 1:
            continue
        gained = {
            k: sum(logprobs[image, k, t] - reference[image, k, t] for t in range(mask.shape[-1]) if mask[image, k, t])
            for k in known
        }
        winner = max(known, key=values.get)
        shares = {k: math.exp(tau * (values[winner] - values[k])) for k in known if k != winner}
        behind = sum(share * gained[k] for k, share in shares.items()) / sum(shares.values())
        losses.append(-torch.log(1 / (1 + torch.exp(-beta * (gained[winner] - behind)))))
    return sum(losses) / len(losses)


def test_the_worked_value():
    """Policy -10, -9.5, -11, reference -10.2, -9.4, -10.5: gained .2, -.1, -.5, and h = .2 (.2 + .495605)."""
    policy, reference = torch.tensor([[[-10.0], [-9.5], [-11.0]]]), torch.tensor([[[-10.2], [-9.4], [-10.5]]])
    loss, sums, weights = loss_of(DiCO(num_samples=3), policy, reference, torch.tensor([[0.80, 0.795, 0.78]]))
    assert weights[0].tolist() == pytest.approx([1, -0.010987, -0.989013], abs=1e-5)
    assert loss.item() == pytest.approx(0.626004, abs=1e-6)
    assert sums["margin"].item() == pytest.approx(0.2 * 0.695605, abs=1e-6) and sums["accuracy"] == 1


def test_equals_a_naive_version_with_its_gradient():
    logprobs, reference, rewards, mask = captions()
    loss, _, _ = loss_of(DiCO(beta=0.3, tau=40), logprobs, reference, rewards, mask)
    expected = naive(logprobs, reference, rewards, mask, 0.3, 40)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)
    ours, theirs = (torch.autograd.grad(value, logprobs)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-8)
    assert (ours[~mask] == 0).all() and (ours[0][mask[0]] != 0).all()
    assert (ours[1, 2] == 0).all() and (ours[2:] == 0).all()


def test_of_two_captions_it_is_dpo():
    logprobs, reference, _, mask = (value[:3, :2] for value in captions())
    rewards = torch.tensor([[2.0, 1.0], [0.5, 0.1], [0.9, 0.2]])
    loss, _, _ = loss_of(DiCO(num_samples=2, beta=0.1), logprobs, reference, rewards, mask)
    dpo = DPO(beta=0.1)(logprobs, reference.masked_fill(~mask, 0.0).sum(-1), mask)
    torch.testing.assert_close(loss, dpo.loss_sum / 3)


def test_without_tau_all_others_count_the_same_and_with_it_the_worst_counts_most():
    rewards = torch.tensor([[0.5, 0.9, 0.1, 0.3]])
    assert DiCO(tau=0).advantages(rewards, None).tolist() == [pytest.approx([-1 / 3, 1, -1 / 3, -1 / 3])]
    assert DiCO().advantages(rewards, None).tolist() == [pytest.approx([0, 1, -1, 0], abs=1e-6)]


def test_a_constant_of_the_rewards_and_one_of_both_policies_change_nothing_nor_does_the_order():
    logprobs, reference, rewards, mask = captions()
    plain, _, _ = loss_of(DiCO(tau=40), logprobs, reference, rewards, mask)
    for policy, base, worth in ((logprobs, reference, rewards + 0.5), (logprobs + 2, reference + 2, rewards)):
        torch.testing.assert_close(loss_of(DiCO(tau=40), policy, base, worth, mask)[0], plain, rtol=1e-4, atol=1e-6)
    order = [3, 0, 4, 2, 1]
    moved = (value[:, order] for value in (logprobs, reference, rewards, mask))
    torch.testing.assert_close(loss_of(DiCO(tau=40), *moved)[0], plain)


def test_what_stands_at_padding_changes_nothing():
    logprobs, reference, rewards, mask = captions()
    dirty = logprobs.detach().masked_fill(~mask, -math.inf).requires_grad_()
    loss, _, _ = loss_of(DiCO(), dirty, reference.masked_fill(~mask, -math.inf), rewards, mask)
    assert loss == loss_of(DiCO(), logprobs, reference, rewards, mask)[0]
    loss.backward()
    assert dirty.grad.isfinite().all()


@pytest.mark.parametrize(
    ("rewards", "weights"),
    [
        ([0.5, 0.5, 0.5], [NAN, NAN, NAN]),  # no spread
        ([NAN, 0.5, NAN], [NAN, NAN, NAN]),  # one has a reward
        ([NAN, NAN, NAN], [NAN, NAN, NAN]),
        ([NAN, 0.5, 0.4], [NAN, 1, -1]),
        ([0.5, 0.5, 0.1], [1, 0, -1]),  # of equal best ones the first
    ],
)
def test_groups_that_are_too_small_and_captions_without_a_reward_are_left_out(rewards, weights):
    found = DiCO(num_samples=3).advantages(torch.tensor([rewards]), None)
    torch.testing.assert_close(found, torch.tensor([weights], dtype=torch.float), equal_nan=True)


def test_only_images_that_are_compared_are_counted_and_logged():
    logprobs, reference, rewards, mask = captions()
    objective = DiCO()
    weights = objective.advantages(rewards, None)
    learned = mask & ~weights.isnan()[..., None]
    _, sums = objective.loss(logprobs, reference, weights.nan_to_num(0.0), learned)
    assert objective.num_targets(learned) == 2
    _, of_two = objective.loss(logprobs[:2], reference[:2], weights[:2].nan_to_num(0.0), learned[:2])
    torch.testing.assert_close(sums, of_two)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 1}, "num_samples: expected"),
        ({"rollout": Decoding("beam", num_beams=4)}, "expected as many beams, got rollout.num_beams=4"),
        ({"rollout": Decoding()}, "a greedy rollout gives one caption"),
        ({"rollout": Decoding("sample", stop=".")}, "learn_eos=false"),
        ({"rollout": Decoding("sample", prompt="a")}, "rollout.prompt"),
        ({"beta": 0.0}, "beta"),
        ({"tau": -1.0}, "tau"),
    ],
)
def test_settings_that_cannot_train_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        DiCO(**settings)


def test_it_follows_the_protocol():
    assert isinstance(DiCO(), PolicyObjective)
