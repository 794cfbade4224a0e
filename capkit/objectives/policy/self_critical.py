"""REINFORCE on sampled captions: self-critical sequence training, NSC (leave-one-out), running baselines.

B images, K samples per image, L tokens, M = L - 1 predicted tokens.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from capkit.objectives.policy.policy_gradient import PolicyGradient
from capkit.utils.ranges import check_ranges


@check_ranges
@dataclass(eq=False)
class SelfCritical(PolicyGradient):
    """L = -(1 / Z) sum_kt m_kt log pi(w_kt) A_k (Rennie et al. 2017, arXiv 1612.00563, equation 7).

    Args (the others as in `PolicyGradient`):
        dropout: Whether dropout is active in the forward pass with gradient.
    """

    dropout: bool = False

    def loss(
        self,
        logprobs: Float[Tensor, "B K M"],
        old_logprobs: Float[Tensor, "B K M"],
        advantages: Float[Tensor, "B K"],
        loss_mask: Bool[Tensor, "B K M"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        # The score function estimator: minus sign, since the optimizer minimises; advantages carry no gradient.
        return self.reduce(-logprobs * advantages[..., None], loss_mask), {}
