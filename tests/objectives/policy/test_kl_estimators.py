"""What each estimator of KL(policy || reference) is worth, and what its gradient descends, by enumeration."""

import pytest
import torch

from capkit.errors import UsageError
from capkit.objectives.policy.kl import KL_FORMS, caption_kl, check_kl, kl_loss

LOGITS = torch.tensor([0.3, -1.2, 2.0, 0.5, -0.4], dtype=torch.float64)
REFERENCE = torch.tensor([1.0, 0.1, 0.4, -2.0, 0.9], dtype=torch.float64).log_softmax(-1)


def expected_gradient(estimator):
    """Of the estimator as a loss: the expectation over tokens of its gradient, tokens drawn but not differentiated."""
    logits = LOGITS.clone().requires_grad_()
    logprobs = logits.log_softmax(-1)
    (logprobs.exp().detach() * estimator(logprobs - REFERENCE)).sum().backward()
    return logits.grad


def exact_gradient(divergence):
    logits = LOGITS.clone().requires_grad_()
    divergence(logits.log_softmax(-1)).backward()
    return logits.grad


def reverse_kl(logprobs):
    return (logprobs.exp() * (logprobs - REFERENCE)).sum()


def forward_kl(logprobs):
    return (REFERENCE.exp() * (REFERENCE - logprobs)).sum()


def test_k2_as_a_loss_descends_the_reverse_kl():
    torch.testing.assert_close(expected_gradient(lambda d: kl_loss("k2", d)), exact_gradient(reverse_kl))


def test_k3_as_a_loss_descends_the_forward_kl():
    torch.testing.assert_close(expected_gradient(lambda d: kl_loss("k3", d)), exact_gradient(forward_kl))


def test_the_two_gradients_differ():
    assert (exact_gradient(reverse_kl) - exact_gradient(forward_kl)).abs().max() > 0.1


def test_k1_as_a_loss_has_an_expected_gradient_of_zero():
    assert expected_gradient(lambda d: d).abs().max() < 1e-12


def test_k1_in_the_reward_has_the_gradient_of_the_reverse_kl():
    torch.testing.assert_close(expected_gradient(lambda d: d.detach() * d), exact_gradient(reverse_kl))


def test_k1_and_k3_are_unbiased_and_k2_is_not():
    logprobs = LOGITS.log_softmax(-1)
    difference = logprobs - REFERENCE
    exact = reverse_kl(logprobs)

    def expected(value):
        return (logprobs.exp() * value).sum()

    torch.testing.assert_close(expected(difference), exact)
    torch.testing.assert_close(expected(kl_loss("k3", difference)), exact)
    assert abs(expected(kl_loss("k2", difference)) - exact) > 0.05


def test_estimators_by_hand():
    # d = ln 2: k2 = .480453 / 2 = .240227; k3 = 1/2 - 1 + .693147 = .193147.
    difference = torch.tensor([2.0, 1.0]).log()
    torch.testing.assert_close(kl_loss("k2", difference), torch.tensor([0.240227, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(kl_loss("k3", difference), torch.tensor([0.193147, 0.0]), atol=1e-6, rtol=0)


def test_the_kl_of_a_caption_by_hand():
    # Three learned tokens: .5 - .2 + .1 = .4 nats; two: -.3 - .4 = -.7; none: 0, whatever stands there.
    difference = torch.tensor([[[0.5, -0.2, 0.1], [-0.3, -0.4, 9.0], [torch.nan, torch.inf, 9.0]]], requires_grad=True)
    loss_mask = torch.tensor([[[True, True, True], [True, True, False], [False, False, False]]])
    distances = caption_kl(difference, loss_mask)
    torch.testing.assert_close(distances, torch.tensor([[0.4, -0.7, 0.0]]))
    assert not distances.requires_grad  # a charge on what the caption earned, not a loss


@pytest.mark.parametrize("kl", ["k1", "k1_loss"])
def test_k1_as_a_loss_is_refused_with_the_reason(kl):
    with pytest.raises(UsageError, match=r"expected gradient of zero.*k1_reward"):
        check_kl(kl)


def test_an_unknown_form_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match="k1_reward"):
        check_kl("k1_rewards")
    for kl in KL_FORMS:
        check_kl(kl)
