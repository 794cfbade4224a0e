"""Divergence of a policy from its reference: the three common estimators of KL(policy || reference).

For a token drawn from the policy, d = log policy - log reference, in nats (Schulman 2020, "Approximating KL
divergence"):

    k1 = d                  unbiased value; as a loss its expected gradient is zero, so it is rejected as a loss
    k2 = d^2 / 2            biased value; its gradient d * grad log policy is that of the reverse KL, on policy
    k3 = exp(-d) - 1 + d    unbiased value; its gradient (1 - exp(-d)) * grad log policy is that of the forward KL

k1 of a whole caption can be a charge on what the caption earned: on its reward, once (k1_reward), or on its advantage,
at each update with the policy as it is then (k1_advantage, as in MOCHa's released code).

GRPO publishes k3 as a loss (arXiv 2402.03300, equation 4). Its gradient minimises KL(reference || policy), not the KL
that its value estimates; and exp(-d) explodes at a token that is probable under the reference but no longer under the
policy.

B images, K samples per image, M predicted tokens.
"""

from jaxtyping import Bool, Float
from torch import Tensor

from capkit.errors import UsageError, check_choice

LOSS_FORMS = ("k2", "k3")
KL_FORMS = ("none", "k1_reward", "k1_advantage", *LOSS_FORMS)


def check_kl(kl: str) -> None:
    """Raise UsageError for an unknown form, or one whose gradient vanishes in expectation."""
    if kl in ("k1", "k1_loss"):
        raise UsageError(
            "kl=k1 as a loss has an expected gradient of zero and adds only noise; use kl=k1_reward (in the "
            "reward), kl=k1_advantage (in the advantage), kl=k2 (a loss: reverse KL) or kl=k3 (as GRPO publishes it)"
        )
    check_choice("kl", kl, KL_FORMS)


def kl_loss(kl: str, difference: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """k2 or k3 of `difference` = log policy - log reference, with gradient."""
    if kl == "k2":
        return difference.square() / 2
    return (-difference).exp() - 1 + difference


def caption_kl(difference: Float[Tensor, "B K M"], loss_mask: Bool[Tensor, "B K M"]) -> Float[Tensor, "B K"]:
    """k1 of each caption in nats: the sum of log policy - log reference over its learned tokens, without gradient."""
    return difference.detach().masked_fill(~loss_mask, 0.0).sum(-1)
