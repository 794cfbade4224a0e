"""Self-critical and PPO losses: hand-worked, against loops, and equal to each other where they must be."""

import math

import pytest
import torch

from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.policy.base import REDUCTIONS, PolicyObjective, learned_tokens
from capkit.objectives.policy.ppo import PPO
from capkit.objectives.policy.self_critical import SelfCritical
from capkit.objectives.policy.weighted_sum import WeightedSum
from capkit.types import Samples

NAN = math.nan
SAMPLE = Decoding("sample")


def samples_of(lengths, ended, num_columns):
    """Samples whose captions have these numbers of real tokens, BOS and EOS included."""
    lengths = torch.tensor(lengths)
    mask = torch.arange(num_columns) < lengths[..., None]
    texts = [["x"] * lengths.shape[1] for _ in lengths]
    return Samples(texts, tokens=mask.long(), mask=mask, ended=torch.tensor(ended))


# The golden case: written after BOS, caption one is 5 7 EOS, caption two 4 EOS.
GOLDEN = samples_of([[4, 3]], [[True, True]], 5)
LOGPROBS = torch.tensor([[[-1.0, -2.0, -0.5, -9.0], [-0.3, -0.2, -9.0, -9.0]]])
ADVANTAGES = torch.tensor([[0.5, -0.25]])


def mean_loss(objective, logprobs, advantages, loss_mask, old_logprobs=None):
    loss, _ = objective.loss(
        logprobs, logprobs.detach() if old_logprobs is None else old_logprobs, advantages, loss_mask
    )
    return loss / objective.num_targets(loss_mask)


# -- which tokens are learned


def test_the_end_is_learned_and_padding_is_not():
    assert learned_tokens(GOLDEN, 1, learn_eos=True).long().tolist() == [[[1, 1, 1, 0], [1, 1, 0, 0]]]


def test_without_the_end_the_last_token_of_an_ended_caption_is_left_out():
    samples = samples_of([[4, 3, 5]], [[True, True, False]], 5)  # the third was cut: its last token is a word
    wanted = [[[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]]
    assert learned_tokens(samples, 1, learn_eos=False).long().tolist() == wanted


def test_given_tokens_are_not_learned():
    samples = samples_of([[4, 5]], [[True, False]], 5)
    assert learned_tokens(samples, 3, learn_eos=True).long().tolist() == [[[0, 0, 1, 0], [0, 0, 1, 1]]]
    assert learned_tokens(samples, 3, learn_eos=False).long().tolist() == [[[0, 0, 0, 0], [0, 0, 1, 1]]]


def test_the_samples_mask_stays_as_it_was():
    before = GOLDEN.mask.clone()
    SelfCritical(learn_eos=False).loss_mask(GOLDEN, 2)
    assert torch.equal(GOLDEN.mask, before)


# -- REINFORCE


@pytest.mark.parametrize(
    ("reduction", "learn_eos", "expected"),
    [
        # (3.5 * .5 + .5 * -.25) / 5 tokens = (1.75 - .125) / 5
        ("token", True, 0.325),
        # Without EOS: (3 * .5 + .3 * -.25) / 3 = 1.425 / 3
        ("token", False, 0.475),
        # (3.5 / 3 * .5 + .5 / 2 * -.25) / 2 captions
        ("seq_mean", True, 0.2604167),
        # (1.75 - .125) / 2 captions
        ("seq_sum", True, 0.8125),
    ],
)
def test_reinforce_by_hand(reduction, learn_eos, expected):
    objective = SelfCritical(num_samples=2, reduction=reduction, learn_eos=learn_eos)
    loss_mask = objective.loss_mask(GOLDEN, 1)
    assert mean_loss(objective, LOGPROBS, ADVANTAGES, loss_mask).item() == pytest.approx(expected, abs=1e-6)


def ragged(num_images=3, num_samples=4, length=7):
    """Random lengths, one caption without a learned token, random log-probabilities and advantages."""
    generator = torch.Generator().manual_seed(num_images)
    lengths = torch.randint(1, length, (num_images, num_samples, 1), generator=generator)
    loss_mask = torch.arange(length) < lengths
    loss_mask[-1, 0] = False
    logprobs = -torch.rand(num_images, num_samples, length, generator=generator, dtype=torch.float64) * 3
    advantages = torch.randn(num_images, num_samples, generator=generator, dtype=torch.float64)
    return logprobs.requires_grad_(), advantages, loss_mask


def naive(losses, loss_mask, reduction):
    """Loops over captions and tokens."""
    captions = []
    for image, image_learned in zip(losses, loss_mask, strict=True):
        for caption, caption_learned in zip(image, image_learned, strict=True):
            values = [value for value, is_learned in zip(caption, caption_learned, strict=True) if is_learned]
            if values:
                captions.append(values)
    if reduction == "token":
        tokens = [value for values in captions for value in values]
        return sum(tokens) / len(tokens)
    totals = [sum(values) / (len(values) if reduction == "seq_mean" else 1) for values in captions]
    return sum(totals) / len(totals)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("num_images", [1, 3])
def test_reductions_equal_loops_forward_and_gradient(reduction, num_images):
    logprobs, advantages, loss_mask = ragged(num_images)
    ours = mean_loss(SelfCritical(reduction=reduction), logprobs, advantages, loss_mask)
    theirs = naive(-logprobs * advantages[..., None], loss_mask, reduction)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, logprobs), torch.autograd.grad(theirs, logprobs))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_sums_of_parts_over_counts_of_parts_are_the_whole(reduction):
    logprobs, advantages, loss_mask = ragged()
    objective = SelfCritical(reduction=reduction)
    parts = [objective.loss(logprobs[i : i + 1], logprobs[i : i + 1], advantages[i : i + 1], loss_mask[i : i + 1])[0]
             for i in range(3)]  # fmt: skip
    counts = [objective.num_targets(loss_mask[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(sum(parts) / sum(counts), mean_loss(objective, logprobs, advantages, loss_mask))


def gradient_of_rewards(objective, rewards, greedy_rewards=None):
    """Of log-probabilities under an objective, given what the captions earned."""
    logprobs, _, loss_mask = ragged()
    advantages = objective.advantages(rewards, greedy_rewards)
    loss_mask = loss_mask & ~advantages.isnan()[..., None]
    loss = mean_loss(objective, logprobs.float(), advantages.nan_to_num(0.0), loss_mask)
    return torch.autograd.grad(loss, logprobs)[0]


@pytest.mark.parametrize("make", [SelfCritical, PPO])
@pytest.mark.parametrize("baseline", ["greedy", "leave_one_out", "group"])
def test_a_constant_added_to_all_rewards_changes_no_gradient(make, baseline):
    rewards = torch.rand(3, 4, generator=torch.Generator().manual_seed(5))
    objective, of_greedy = make(baseline=baseline), rewards[:, 0] / 2
    before = gradient_of_rewards(objective, rewards, of_greedy)
    after = gradient_of_rewards(objective, rewards + 3, of_greedy + 3)
    assert before.abs().max() > 1e-3
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("make", [SelfCritical, PPO])
@pytest.mark.parametrize("baseline", ["leave_one_out", "group"])
def test_groups_without_spread_give_a_gradient_of_exactly_zero(make, baseline):
    rewards = torch.tensor([[0.1], [0.7], [1 / 3]]).expand(3, 4)
    gradient = gradient_of_rewards(make(baseline=baseline), rewards)
    assert (gradient == 0).all()
    assert gradient_of_rewards(make(baseline="none"), rewards).abs().max() > 0


@pytest.mark.parametrize("make", [SelfCritical, PPO])
@pytest.mark.parametrize("whiten", [False, True])
def test_a_missing_reward_leaves_its_caption_out_and_makes_no_nan(make, whiten):
    rewards = torch.rand(3, 4, generator=torch.Generator().manual_seed(5))
    rewards[1, 2] = NAN
    gradient = gradient_of_rewards(make(baseline="leave_one_out", whiten=whiten), rewards)
    assert gradient.isfinite().all()
    assert (gradient[1, 2] == 0).all()
    assert gradient[1, 1].abs().max() > 0


# -- PPO


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ppos_first_update_has_the_gradient_of_reinforce(reduction):
    logprobs, advantages, loss_mask = ragged()
    settings = {"baseline": "none", "reduction": reduction}
    gradients = [
        torch.autograd.grad(mean_loss(objective, logprobs, advantages, loss_mask), logprobs)[0]
        for objective in (SelfCritical(**settings), PPO(**settings))
    ]
    torch.testing.assert_close(*gradients)


def ppo_case(ratios, advantages, **settings):
    """One token a caption with these ratios of new to old: (loss, its gradient by log pi, how many were cut)."""
    old_logprobs = torch.full((1, len(ratios), 1), -1.0, dtype=torch.float64)
    logprobs = (old_logprobs + torch.tensor(ratios, dtype=torch.float64).log()[None, :, None]).requires_grad_()
    loss_mask = torch.ones_like(old_logprobs, dtype=torch.bool)
    gains = torch.tensor([advantages], dtype=torch.float64)
    objective = PPO(num_samples=len(ratios), **settings)
    loss, extra = objective.loss(logprobs, old_logprobs, gains, loss_mask)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    return loss.item(), gradient[0, :, 0].tolist(), int(extra["clip_fraction"])


def test_ppos_clip_by_hand():
    # eps .2. A = 2: ratio 1.1 -> -2.2; 1.5 -> cut to 1.2: -2.4, no gradient; .5 -> -1 (falling is not cut).
    # A = -1: ratio .5 -> cut to .8: .8, no gradient; 1.5 -> 1.5; .9 -> .9. The gradient by log pi is -ratio A.
    loss, gradient, clipped = ppo_case([1.1, 1.5, 0.5, 0.5, 1.5, 0.9], [2.0, 2.0, 2.0, -1.0, -1.0, -1.0])
    assert loss == pytest.approx(-2.2 - 2.4 - 1.0 + 0.8 + 1.5 + 0.9)
    assert gradient == pytest.approx([-2.2, 0.0, -1.0, 0.0, 1.5, 0.9])
    assert clipped == 2


def test_an_asymmetric_clip_lets_probabilities_rise_further_than_they_fall():
    # clip_low .1, clip_high .5. A = 1: 1.4 -> -1.4; 1.6 -> cut to 1.5. A = -1: .85 -> cut to .9; .95 -> .95.
    loss, gradient, clipped = ppo_case([1.4, 1.6, 0.85, 0.95], [1.0, 1.0, -1.0, -1.0], clip_low=0.1, clip_high=0.5)
    assert loss == pytest.approx(-1.4 - 1.5 + 0.9 + 0.95)
    assert gradient == pytest.approx([-1.4, 0.0, 0.0, 0.95])
    assert clipped == 2


def test_ppo_equals_the_naive_loop():
    logprobs, advantages, loss_mask = ragged()
    old_logprobs = (
        logprobs.detach() + torch.randn(logprobs.shape, generator=torch.Generator().manual_seed(1)).double() * 0.3
    )
    ours = mean_loss(PPO(), logprobs, advantages, loss_mask, old_logprobs)
    losses = torch.zeros_like(old_logprobs)
    for place in loss_mask.nonzero().tolist():
        b, k, t = place
        ratio = math.exp(float(logprobs[b, k, t].detach() - old_logprobs[b, k, t]))
        gain = advantages[b, k].item()
        losses[b, k, t] = -min(ratio * gain, max(0.8, min(1.2, ratio)) * gain)
    torch.testing.assert_close(ours, naive(losses, loss_mask, "token"))


def test_what_stands_at_unlearned_places_reaches_neither_loss_nor_gradient():
    logprobs, advantages, loss_mask = ragged()
    old_logprobs = logprobs.detach().masked_fill(~loss_mask, -2000.0)
    for objective in (SelfCritical(), PPO()):
        loss = mean_loss(objective, logprobs, advantages, loss_mask, old_logprobs)
        (gradient,) = torch.autograd.grad(loss, logprobs)
        assert loss.isfinite()
        assert (gradient[~loss_mask] == 0).all()


# -- protocol and wrong input


def test_objectives_follow_the_protocol_and_cross_entropy_does_not():
    assert isinstance(SelfCritical(), PolicyObjective)
    assert isinstance(PPO(), PolicyObjective)
    assert not isinstance(CrossEntropy(), PolicyObjective)


def test_only_a_greedy_baseline_asks_for_greedy_captions():
    assert SelfCritical().needs_greedy
    assert not PPO().needs_greedy
    assert PPO(baseline="greedy").needs_greedy


def test_a_running_baseline_is_part_of_the_objectives_state():
    objective, other = SelfCritical(baseline="running_mean"), SelfCritical(baseline="running_mean")
    objective.advantages(torch.tensor([[2.0, 4.0]]), None)
    other.load_state_dict(objective.state_dict())
    assert other.advantages(torch.tensor([[3.0, 5.0]]), None).tolist() == [[0.0, 2.0]]


@pytest.mark.parametrize("make", [SelfCritical, PPO])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rollout": Decoding("beam", num_beams=2)}, "method=beam"),
        ({"rollout": Decoding(), "baseline": "none"}, "num_samples=1"),
        ({"rollout": Decoding(), "num_samples": 1, "baseline": "greedy"}, "all advantages"),
        ({"num_samples": 0, "baseline": "none"}, "num_samples: expected"),
        ({"num_samples": 1, "baseline": "leave_one_out"}, "2 or more"),
        ({"num_samples": 1, "baseline": "group"}, "2 or more"),
        ({"reduction": "mean"}, "reduction must be"),
        ({"baseline": "gredy"}, "greedy"),
        ({"kl": "k1"}, "expected gradient of zero"),
        ({"max_logprob_gap": 0.0}, "max_logprob_gap"),
    ],
)
def test_settings_that_cannot_train_are_refused(make, settings, message):
    with pytest.raises(UsageError, match=message):
        make(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inner_updates": 0}, "inner_updates"),
        ({"clip_low": 0.0}, "clip_low"),
        ({"clip_low": 1.0}, "clip_low"),
        ({"clip_high": 0.0}, "clip_high"),
    ],
)
def test_ppo_refuses_a_clip_that_cuts_everything_or_nothing(settings, message):
    with pytest.raises(UsageError, match=message):
        PPO(**settings)


class CallablePPO(PPO):
    """Passes for an objective on references by its methods alone."""

    def __call__(self, model, batch, step):
        raise AssertionError


def test_a_mixture_of_two_policies_is_refused():
    with pytest.raises(UsageError, match="cross_entropy"):
        WeightedSum(SelfCritical(), CallablePPO())
