"""PPO and GRPO on captions: several updates per batch of samples, with a clipped policy ratio.

B images, K samples per image, L tokens, M = L - 1 predicted tokens.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from capkit.decoding.config import Decoding
from capkit.objectives.policy.self_critical import SelfCritical
from capkit.optim.schedules import Schedule
from capkit.utils.ranges import DecayRate, NonNegativeFloat, OpenProbability, PositiveFloat, PositiveInt, check_ranges


@check_ranges
class PPO(SelfCritical):
    """L = -(1 / Z) sum_kt m_kt min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), rho = pi / pi_old of each token.

    Schulman et al. 2017 (arXiv 1707.06347), equation 7. With baseline=group this is GRPO (arXiv 2402.03300). pi_old is
    the sampling policy, evaluated by teacher forcing before the first update, with the rollout's temperature and
    support: in the first of `inner_updates` rho is 1 and the gradient equals that of `SelfCritical`.

    Deliberate difference: (1) no learned value function; the baseline is one of `capkit.objectives.policy.advantages`,
    as in MOCHa and GRPO.

    Args (the others as in `SelfCritical`):
        inner_updates: Optimizer updates per batch of samples.
        clip_low: rho is clipped at 1 - clip_low from below.
        clip_high: rho is clipped at 1 + clip_high from above; null: clip_low. Larger than clip_low it is DAPO's
            "clip-higher" (arXiv 2503.14476).
    """

    def __init__(
        self,
        rollout: Decoding | None = None,
        num_samples: PositiveInt = 8,
        inner_updates: PositiveInt = 4,
        clip_low: OpenProbability = 0.2,
        clip_high: PositiveFloat | None = None,
        baseline: str = "group",
        whiten: bool = False,
        reduction: str = "token",
        learn_eos: bool = True,
        kl: str = "none",
        kl_weight: NonNegativeFloat | Schedule = 0.0,
        divide_by_std: bool = True,
        decay: DecayRate = 0.9,
        max_logprob_gap: PositiveFloat = 0.05,
    ) -> None:
        super().__init__(
            rollout=rollout,
            num_samples=num_samples,
            baseline=baseline,
            whiten=whiten,
            reduction=reduction,
            learn_eos=learn_eos,
            kl=kl,
            kl_weight=kl_weight,
            divide_by_std=divide_by_std,
            decay=decay,
            max_logprob_gap=max_logprob_gap,
        )
        clip_high = clip_low if clip_high is None else clip_high
        self.inner_updates, self.clip_low, self.clip_high = inner_updates, clip_low, clip_high  # type: ignore[misc]

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
        clipped = ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        # The minimum is the pessimistic bound: clipping removes the incentive to move further, never that to move back.
        losses = -torch.minimum(ratio * gain, clipped * gain)
        # Where the clipped term is the minimum it is constant in the policy: these tokens have no gradient.
        outside = (clipped * gain < ratio * gain) & loss_mask
        return self.reduce(losses, loss_mask), {"clip_fraction": outside.sum().detach()}
