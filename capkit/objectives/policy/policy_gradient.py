"""What policy gradients share, whatever the loss of a token is: sampling, advantages, reduction, KL.

B images, K samples per image, L tokens, M = L - 1 predicted tokens.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from capkit.decoding.config import Decoding
from capkit.objectives.policy.advantages import Advantages
from capkit.objectives.policy.base import (
    check_reduction,
    check_sampling,
    check_stop,
    count_targets,
    learned_tokens,
    reduce_losses,
)
from capkit.objectives.policy.kl import check_kl
from capkit.optim.schedules import Schedule
from capkit.types import Samples
from capkit.utils.ranges import DecayRate, NonNegativeFloat, PositiveFloat, PositiveInt

SAMPLING = Decoding(method="sample")


@dataclass(eq=False)
class PolicyGradient:
    """A loss of sampled captions and their advantages. A sample without a reward (NaN) is left out.

    Subclasses are dataclasses too: they define `loss`, and may add arguments or give others of these defaults.

    Args:
        rollout: How captions are sampled, always without dropout. Log-probabilities are computed under the same
            temperature and truncation.
        num_samples: Captions per image.
        baseline: greedy, leave_one_out, group, running_mean, ema or none (`capkit.objectives.policy.advantages`).
        whiten: Standardise advantages over the global batch.
        reduction: Z counts the learned tokens of the global batch (token, as Cho et al. and Luo), captions after a mean
            over each caption's tokens (seq_mean, as DiscriTune and MOCHa), or captions (seq_sum).
        learn_eos: Whether EOS is a learned token.
        kl: Divergence from the policy that the run started from (`capkit.objectives.policy.kl`).
        kl_weight: Its weight; with 0 it is only logged.
        divide_by_std: Divide by the group's standard deviation (baseline=group only).
        decay: Of the moving average (baseline=ema only).
        max_logprob_gap: Warn if sampled and teacher-forced log-probabilities differ by more nats per token on average.
    """

    rollout: Decoding = SAMPLING
    num_samples: PositiveInt = 5
    baseline: str = "greedy"
    whiten: bool = False
    reduction: str = "token"
    learn_eos: bool = True
    kl: str = "none"
    kl_weight: NonNegativeFloat | Schedule = 0.0
    divide_by_std: bool = True
    decay: DecayRate = 0.9
    max_logprob_gap: PositiveFloat = 0.05

    inner_updates = 1
    dropout = False
    against_reference = False

    def __post_init__(self) -> None:
        check_sampling(type(self).__name__, self.rollout, self.num_samples, self.baseline)
        check_stop(self.rollout, self.learn_eos)
        check_reduction(self.reduction)
        check_kl(self.kl)
        self.needs_greedy = self.baseline == "greedy"
        self._advantages = Advantages(self.baseline, self.whiten, self.divide_by_std, self.decay)

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

    @abstractmethod
    def loss(
        self,
        logprobs: Float[Tensor, "B K M"],
        old_logprobs: Float[Tensor, "B K M"],
        advantages: Float[Tensor, "B K"],
        loss_mask: Bool[Tensor, "B K M"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]: ...

    def logs(self) -> dict[str, float]:
        return self._advantages.logs()

    def state_dict(self) -> dict[str, Any]:
        return self._advantages.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._advantages.load_state_dict(state)
