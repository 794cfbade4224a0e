"""Divergence of a policy from its reference: the three common estimators of KL(policy || reference).

For a token drawn from the policy, d = log policy - log reference, in nats (Schulman 2020, "Approximating KL
divergence"):

    k1 = d                  unbiased value; as a loss its expected gradient is zero, so it is rejected as a loss
    k2 = d^2 / 2            biased value; its gradient d * grad log policy is that of the reverse KL, on policy
    k3 = exp(-d) - 1 + d    unbiased value; its gradient (1 - exp(-d)) * grad log policy is that of the forward KL

GRPO publishes k3 as a loss (arXiv 2402.03300, equation 4). Its gradient minimises KL(reference || policy), not the KL
that its value estimates; and exp(-d) explodes at a token that is probable under the reference but no longer under the
policy.
"""

from jaxtyping import Float
from torch import Tensor

from capkit.errors import UsageError, did_you_mean

KL_FORMS = ("none", "k1_reward", "k2", "k3")


def check_kl(kl: str) -> None:
    """Raise UsageError for an unknown form, or one whose gradient vanishes in expectation."""
    if kl in ("k1", "k1_loss"):
        raise UsageError(
            "kl=k1 as a loss has an expected gradient of zero and adds only noise; use kl=k1_reward (in the "
            "reward), kl=k2 (reverse KL as a loss) or kl=k3 (as GRPO publishes it)"
        )
    if kl not in KL_FORMS:
        raise UsageError(f"kl must be one of {', '.join(KL_FORMS)}; got {kl!r}; {did_you_mean(kl, KL_FORMS)}")


def kl_loss(kl: str, difference: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """k2 or k3 of `difference` = log policy - log reference, with gradient."""
    if kl == "k2":
        return difference.square() / 2
    return (-difference).exp() - 1 + difference
