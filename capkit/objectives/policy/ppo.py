"""PPO and GRPO on captions: several updates per batch of samples, with a clipped policy ratio.

B images, K samples per image, L tokens, M = L - 1 predicted tokens.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from capkit.objectives.policy.policy_gradient import PolicyGradient
from capkit.utils.ranges import OpenProbability, PositiveFloat, PositiveInt, check_ranges


@check_ranges
@dataclass(eq=False)
class PPO(PolicyGradient):
    """L = -(1 / Z) sum_kt m_kt min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), rho = pi / pi_old of each token.

    Schulman et al. 2017 (arXiv 1707.06347), equation 7. With baseline=group this is GRPO (arXiv 2402.03300). pi_old is
    the sampling policy, evaluated by teacher forcing before the first update, with the rollout's temperature and
    support: in the first of `inner_updates` rho is 1 and the gradient equals that of `SelfCritical`.

    Deliberate difference: (1) no learned value function; the baseline is one of `capkit.objectives.policy.advantages`,
    as in MOCHa and GRPO.

    Args (the others as in `PolicyGradient`):
        inner_updates: Optimizer updates per batch of samples.
        clip_low: rho is clipped at 1 - clip_low from below.
        clip_high: rho is clipped at 1 + clip_high from above; null: clip_low. Larger than clip_low it is DAPO's
            "clip-higher" (arXiv 2503.14476).
    """

    num_samples: PositiveInt = 8
    baseline: str = "group"
    inner_updates: PositiveInt = 4
    clip_low: OpenProbability = 0.2
    clip_high: PositiveFloat | None = None

    def loss(
        self,
        logprobs: Float[Tensor, "B K M"],
        old_logprobs: Float[Tensor, "B K M"],
        advantages: Float[Tensor, "B K"],
        loss_mask: Bool[Tensor, "B K M"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        # Masked before exp: a position that is not learned gets ratio 1, never an overflow with a NaN gradient.
        ratio = (logprobs - old_logprobs).masked_fill(~loss_mask, 0.0).exp()
        gain = advantages[..., None]
        clip_high = self.clip_low if self.clip_high is None else self.clip_high
        clipped = ratio.clamp(1 - self.clip_low, 1 + clip_high)
        # The minimum is the pessimistic bound: clipping removes the incentive to move further, never that to move back.
        losses = -torch.minimum(ratio * gain, clipped * gain)
        # Where the clipped term is the minimum it is constant in the policy: these tokens have no gradient.
        outside = (clipped * gain < ratio * gain) & loss_mask
        return self.reduce(losses, loss_mask), {"clip_fraction": outside.sum().detach()}
