"""What every policy objective shares: which sampled tokens are learned, and how their losses are added up.

B images, K samples per image, L tokens, M = L - 1 predicted tokens.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.optim.schedules import Schedule
from capkit.types import Samples

REDUCTIONS = ("token", "seq_mean", "seq_sum")


@runtime_checkable
class PolicyObjective(Protocol):
    """A loss of sampled captions. `RLModule` samples, scores and updates as these attributes say."""

    rollout: Decoding  # how captions are sampled; log-probabilities are those of this distribution
    num_samples: int  # of each image
    needs_greedy: bool  # whether the baseline scores a greedy caption of each image
    inner_updates: int  # optimizer updates on one batch of samples
    dropout: bool  # whether dropout is on where log-probabilities are computed with gradient
    kl: str  # none, k1_reward, k2 or k3
    kl_weight: float | int | Schedule
    max_logprob_gap: float  # a mean difference of sampled and teacher-forced log-probabilities above it is told

    def loss_mask(self, samples: Samples, prompt_length: int) -> Bool[Tensor, "B K M"]:
        """Which of `tokens[..., 1:]` are learned."""
        ...

    def advantages(
        self, rewards: Float[Tensor, "B K"], greedy_rewards: Float[Tensor, " B"] | None
    ) -> Float[Tensor, "B K"]:
        """NaN: the sample is left out. Communicates."""
        ...

    def num_targets(self, loss_mask: Bool[Tensor, "B K M"]) -> Tensor:
        """What the sum of losses is divided by: the learned tokens, or the captions that have any."""
        ...

    def loss(
        self,
        logprobs: Float[Tensor, "B K M"],
        old_logprobs: Float[Tensor, "B K M"],
        advantages: Float[Tensor, "B K"],
        loss_mask: Bool[Tensor, "B K M"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The summed loss with gradient, and sums over tokens to log.

        `old_logprobs` are the log-probabilities at sampling. Advantages of captions that are left out may be any finite
        number.
        """
        ...

    def reduce(self, losses: Float[Tensor, "B K M"], loss_mask: Bool[Tensor, "B K M"]) -> Float[Tensor, ""]: ...

    def logs(self) -> dict[str, float]:
        """Numbers it knows of its own state, equal on all ranks."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def learned_tokens(samples: Samples, prompt_length: int, learn_eos: bool) -> Bool[Tensor, "B K M"]:
    """True at the tokens that the policy chose: after the prompt, up to EOS, which counts with `learn_eos`."""
    assert samples.mask is not None and samples.ended is not None
    mask = samples.mask[..., 1:].clone()
    mask[..., : prompt_length - 1] = False
    if not learn_eos:
        places = torch.arange(mask.shape[-1], device=mask.device)
        last = samples.mask.sum(-1, keepdim=True) - 2
        mask &= ~(samples.ended[..., None] & (places == last))
    return mask


def check_reduction(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise UsageError(
            f"reduction must be token (mean over all tokens), seq_mean (mean of captions' means) or seq_sum (mean of "
            f"captions' sums); got {reduction!r}"
        )


def count_targets(loss_mask: Bool[Tensor, "B K M"], reduction: str) -> Tensor:
    """Learned tokens (token), or captions with a learned token (seq_mean, seq_sum)."""
    return loss_mask.sum() if reduction == "token" else loss_mask.any(-1).sum()


def reduce_losses(
    losses: Float[Tensor, "B K M"], loss_mask: Bool[Tensor, "B K M"], reduction: str
) -> Float[Tensor, ""]:
    """The sum that `count_targets` divides: of tokens' losses, or of each caption's mean."""
    per_caption = losses.masked_fill(~loss_mask, 0.0).sum(-1)
    if reduction == "seq_mean":
        per_caption = per_caption / loss_mask.sum(-1).clamp(min=1)
    return per_caption.sum()


def check_sampling(
    objective: str, rollout: Decoding, num_samples: int, baseline: str, check: Callable[[bool, str], None]
) -> None:
    """Combinations of rollout and baseline that cannot work, told by `check(valid, message)`."""
    check(rollout.method != "beam", f"{objective} learns from samples or greedy captions; got rollout.method=beam")
    check(
        rollout.method == "sample" or num_samples == 1,
        f"a greedy rollout gives one caption an image; got num_samples={num_samples}; set num_samples=1",
    )
    check(
        baseline not in ("leave_one_out", "group") or num_samples > 1,
        f"baseline={baseline} compares samples of one image; got num_samples={num_samples}; set it to 2 or more",
    )
    check(
        not (baseline == "greedy" and rollout.method == "greedy"),
        "a greedy rollout compared with itself has no advantage; use baseline=running_mean, ema or none",
    )
