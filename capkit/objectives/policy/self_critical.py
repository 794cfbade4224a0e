"""REINFORCE on sampled captions: self-critical sequence training, NSC (leave-one-out), running baselines.

B images, K samples per image, L tokens, M = L - 1 predicted tokens.
"""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from capkit.decoding.config import Decoding
from capkit.objectives.policy.advantages import Advantages
from capkit.objectives.policy.base import check_reduction, check_sampling, count_targets, learned_tokens, reduce_losses
from capkit.objectives.policy.kl import check_kl
from capkit.optim.schedules import Schedule
from capkit.types import Samples
from capkit.utils.ranges import DecayRate, NonNegativeFloat, PositiveFloat, PositiveInt, check_ranges


@check_ranges
class SelfCritical:
    """L = -(1 / Z) sum_kt m_kt log pi(w_kt) A_k (Rennie et al. 2017, arXiv 1612.00563, equation 7).

    A sample without a reward (NaN) is left out.

    Args:
        rollout: How captions are sampled, always without dropout. Log-probabilities are computed under the same
            temperature and truncation.
        num_samples: Captions per image.
        baseline: greedy, leave_one_out, group, running_mean, ema or none (`capkit.objectives.policy.advantages`).
        whiten: Standardise advantages over the global batch.
        reduction: Z counts the learned tokens of the global batch (token, as Cho et al. and Luo), captions after a mean
            over each caption's tokens (seq_mean, as DiscriTune), or captions (seq_sum).
        learn_eos: Whether EOS is a learned token.
        dropout: Whether dropout is active in the forward pass with gradient.
        kl: Divergence from the policy that the run started from (`capkit.objectives.policy.kl`).
        kl_weight: Its weight; with 0 it is only logged.
        divide_by_std: Divide by the group's standard deviation (baseline=group only).
        decay: Of the moving average (baseline=ema only).
        max_logprob_gap: Warn if sampled and teacher-forced log-probabilities differ by more nats per token on average.
    """

    inner_updates = 1

    def __init__(
        self,
        rollout: Decoding | None = None,
        num_samples: PositiveInt = 5,
        baseline: str = "greedy",
        whiten: bool = False,
        reduction: str = "token",
        learn_eos: bool = True,
        dropout: bool = False,
        kl: str = "none",
        kl_weight: NonNegativeFloat | Schedule = 0.0,
        divide_by_std: bool = True,
        decay: DecayRate = 0.9,
        max_logprob_gap: PositiveFloat = 0.05,
    ) -> None:
        self.rollout = rollout or Decoding(method="sample")
        check_sampling("self_critical", self.rollout, num_samples, baseline)
        check_reduction(reduction)
        check_kl(kl)
        self.num_samples, self.reduction, self.learn_eos, self.dropout = num_samples, reduction, learn_eos, dropout
        self.kl, self.kl_weight, self.max_logprob_gap = kl, kl_weight, max_logprob_gap
        self.needs_greedy = baseline == "greedy"
        self._advantages = Advantages(baseline, whiten, divide_by_std, decay)

    def loss_mask(self, samples: Samples, prompt_length: int) -> Bool[Tensor, "B K M"]:
        return learned_tokens(samples, prompt_length, self.learn_eos)

    def advantages(
        self, rewards: Float[Tensor, "B K"], greedy_rewards: Float[Tensor, " B"] | None
    ) -> Float[Tensor, "B K"]:
        return self._advantages(rewards, greedy_rewards)

    def num_targets(self, loss_mask: Bool[Tensor, "B K M"]) -> Tensor:
        return count_targets(loss_mask, self.reduction)

    def reduce(self, losses: Float[Tensor, "B K M"], loss_mask: Bool[Tensor, "B K M"]) -> Float[Tensor, ""]:
        return reduce_losses(losses, loss_mask, self.reduction)

    def loss(
        self,
        logprobs: Float[Tensor, "B K M"],
        old_logprobs: Float[Tensor, "B K M"],
        advantages: Float[Tensor, "B K"],
        loss_mask: Bool[Tensor, "B K M"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        # The score function estimator: minus sign, since the optimizer minimises; advantages carry no gradient.
        return self.reduce(-logprobs * advantages[..., None], loss_mask), {}

    def logs(self) -> dict[str, float]:
        return self._advantages.logs()

    def state_dict(self) -> dict[str, Any]:
        return self._advantages.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._advantages.load_state_dict(state)
