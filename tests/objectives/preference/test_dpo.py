"""DPO: its worked value, a naive version, and what must not change it."""

import math

import pytest
import torch

from capkit.errors import UsageError
from capkit.objectives.preference.dpo import DPO

MASK = torch.ones(1, 2, 1, dtype=torch.bool)
POLICY, REFERENCE = torch.tensor([[[-10.0], [-12.0]]]), torch.tensor([[-10.5, -11.0]])


def pairs(count=5, length=7, seed=0):
    draw = torch.Generator().manual_seed(seed)
    logprobs = -torch.rand(count, 2, length, generator=draw, dtype=torch.double) * 3
    mask = torch.arange(length) < torch.randint(1, length + 1, (count, 2, 1), generator=draw)
    reference = -torch.rand(count, 2, generator=draw, dtype=torch.double) * 9
    return logprobs.requires_grad_(), reference, mask


def naive(logprobs, reference, mask, beta, smoothing, per_token, likelihood):
    """One pair and one token at a time."""
    total = torch.zeros((), dtype=torch.double)
    for row in range(len(logprobs)):
        gained, counts, said = [], [], []
        for side in (0, 1):
            real = [logprobs[row, side, t] for t in range(mask.shape[-1]) if mask[row, side, t]]
            counts.append(len(real))
            said.append(sum(real))
            gain = said[-1] - reference[row, side]
            gained.append(gain / counts[-1] if per_token else gain)
        h = beta * (gained[0] - gained[1])
        total = (
            total - (1 - smoothing) * torch.log(1 / (1 + torch.exp(-h))) - smoothing * torch.log(1 / (1 + torch.exp(h)))
        )
        total = total - likelihood * said[0] / counts[0]
    return total


def test_the_worked_value():
    """Policy -10 and -12, reference -10.5 and -11, beta .1: h = .1 (.5 + 1) = .15, -log sigmoid(.15) = .620957."""
    output = DPO(beta=0.1)(POLICY, REFERENCE, MASK)
    assert output.loss_sum.item() == pytest.approx(0.620957, abs=1e-6)
    found = {name: value.item() for name, value in output.sums.items()}
    wanted = {"margin": 0.15, "accuracy": 1, "chosen_logprob": -10, "rejected_logprob": -12, "chosen_drop": -0.5}
    assert found == pytest.approx(wanted, abs=1e-6)


def test_smoothing_mixes_the_loss_of_the_sides_exchanged():
    plain, exchanged = 0.620957, 0.620957 + 0.15
    assert DPO(label_smoothing=0.2)(POLICY, REFERENCE, MASK).loss_sum.item() == pytest.approx(
        0.8 * plain + 0.2 * exchanged, abs=1e-6
    )


def test_likelihood_adds_that_of_the_chosen_caption_a_token():
    three = torch.ones(1, 2, 4, dtype=torch.bool)
    logprobs = torch.tensor([[[-1.0, -2.0, -3.0, -4.0], [-3.0, -3.0, -3.0, -3.0]]])
    assert DPO(likelihood=2.0)(logprobs, REFERENCE, three).loss_sum.item() == pytest.approx(
        0.620957 + 2 * 2.5, abs=1e-5
    )


@pytest.mark.parametrize(
    ("smoothing", "per_token", "likelihood"), [(0.0, False, 0.0), (0.1, True, 0.0), (0.3, False, 0.7)]
)
def test_equals_a_naive_version_with_its_gradient(smoothing, per_token, likelihood):
    logprobs, reference, mask = pairs()
    output = DPO(0.3, smoothing, per_token, likelihood)(logprobs, reference, mask)
    expected = naive(logprobs, reference, mask, 0.3, smoothing, per_token, likelihood)
    torch.testing.assert_close(output.loss_sum, expected)
    ours, theirs = (torch.autograd.grad(loss, logprobs)[0] for loss in (output.loss_sum, expected))
    torch.testing.assert_close(ours, theirs)
    assert (ours[~mask] == 0).all() and (ours[mask] != 0).all()


def test_what_stands_at_padding_changes_nothing():
    logprobs, reference, mask = pairs()
    dirty = logprobs.detach().masked_fill(~mask, -math.inf).requires_grad_()
    assert DPO()(dirty, reference, mask).loss_sum == DPO()(logprobs, reference, mask).loss_sum
    DPO()(dirty, reference, mask).loss_sum.backward()
    assert dirty.grad.isfinite().all()


def test_a_constant_of_both_sides_or_of_policy_and_reference_cancels():
    logprobs, reference, mask = pairs()
    shifted = logprobs.detach().clone()
    shifted[:, :, 0] += torch.tensor([1.0, 1.0])
    for policy, base in ((shifted, reference), (logprobs, reference + 3)):
        torch.testing.assert_close(DPO()(policy, base, mask).loss_sum, DPO()(logprobs, reference, mask).loss_sum)


def test_per_token_a_longer_caption_with_the_same_mean_has_no_margin():
    logprobs, mask = torch.full((1, 2, 6), -2.0), torch.tensor([[[True] * 6, [True] * 2 + [False] * 4]])
    reference = torch.tensor([[-15.0, -5.0]])  # 2.5 a token
    assert DPO(per_token=True)(logprobs, reference, mask).sums["margin"] == 0
    assert DPO()(logprobs, reference, mask).sums["margin"].item() == pytest.approx(0.1 * (3 - 1))


def test_at_the_reference_a_pair_counts_half():
    logprobs, _, mask = pairs()
    reference = logprobs.detach().masked_fill(~mask, 0).sum(-1)
    output = DPO()(logprobs, reference, mask)
    assert output.sums["accuracy"] == 5 / 2 and output.loss_sum.item() == pytest.approx(5 * math.log(2))


@pytest.mark.parametrize("wrong", [{"beta": 0.0}, {"label_smoothing": 0.5}, {"likelihood": -1.0}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError):
        DPO(**wrong)
