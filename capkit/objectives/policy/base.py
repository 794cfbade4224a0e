"""The protocol of policy objectives, the mask of learned tokens, and the reductions of their losses.

B images, K samples per image, L tokens, M = L - 1 predicted tokens.
"""

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
    """A loss of sampled captions. Its attributes tell `RLModule` how to sample, score and update."""

    rollout: Decoding  # how captions are sampled; log-probabilities are those of this distribution
    num_samples: int  # per image
    needs_greedy: bool  # whether the baseline is the reward of a greedy caption of each image
    inner_updates: int  # optimizer updates on one batch of samples
    dropout: bool  # whether dropout is active in the forward pass with gradient
    kl: str  # none, k1_reward, k1_advantage, k2 or k3
    kl_weight: float | int | Schedule
    against_reference: bool  # whether `loss` compares with the policy that the run started from
    max_logprob_gap: float  # warn if sampled and teacher-forced log-probabilities differ more on average

    def loss_mask(self, samples: Samples, prompt_length: int) -> Bool[Tensor, "B K M"]:
        """True at the learned tokens among `tokens[..., 1:]`."""
        ...

    def advantages(
        self, rewards: Float[Tensor, "B K"], greedy_rewards: Float[Tensor, " B"] | None
    ) -> Float[Tensor, "B K"]:
        """Advantage of each sample; NaN leaves the sample out of the loss. Communicates."""
        ...

    def num_targets(self, loss_mask: Bool[Tensor, "B K M"]) -> Tensor:
        """The divisor of the summed losses: the number of learned tokens, or of captions that have any."""
        ...

    def loss(
        self,
        logprobs: Float[Tensor, "B K M"],
        old_logprobs: Float[Tensor, "B K M"],
        advantages: Float[Tensor, "B K"],
        loss_mask: Bool[Tensor, "B K M"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The summed loss with gradient, and sums over tokens to log.

        `old_logprobs` are the log-probabilities at sampling; where `against_reference`, those of the reference, both
        untruncated, and the sums to log are over what `num_targets` counts. `loss_mask` masks captions that are left
        out; their advantages may be any finite number.
        """
        ...

    def reduce(self, losses: Float[Tensor, "B K M"], loss_mask: Bool[Tensor, "B K M"]) -> Float[Tensor, ""]: ...

    def logs(self) -> dict[str, float]:
        """Numbers to log about the objective's own state, equal on all ranks."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def learned_tokens(samples: Samples, prompt_length: int, learn_eos: bool) -> Bool[Tensor, "B K M"]:
    """True at the tokens that the policy chose: after the prompt and up to EOS, which is included if `learn_eos`."""
    assert samples.mask is not None and samples.ended is not None
    mask = samples.mask[..., 1:].clone()  # BOS is never predicted
    mask[..., : prompt_length - 1] = False
    if not learn_eos:
        places = torch.arange(mask.shape[-1], device=mask.device)
        last = samples.mask.sum(-1, keepdim=True) - 2  # of n real tokens, the last has index n - 2 in tokens[1:]
        mask &= ~(samples.ended[..., None] & (places == last))
    return mask


def check_reduction(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise UsageError(
            f"reduction must be token (mean over all tokens), seq_mean (mean over captions of their token means) or "
            f"seq_sum (mean over captions of their token sums); got {reduction!r}"
        )


def count_targets(loss_mask: Bool[Tensor, "B K M"], reduction: str) -> Tensor:
    """Number of learned tokens (token), or of captions with a learned token (seq_mean, seq_sum)."""
    return loss_mask.sum() if reduction == "token" else loss_mask.any(-1).sum()


def reduce_losses(
    losses: Float[Tensor, "B K M"], loss_mask: Bool[Tensor, "B K M"], reduction: str
) -> Float[Tensor, ""]:
    """Sum of the tokens' losses, or of the captions' means (seq_mean), to be divided by the global `count_targets`."""
    # masked_fill, not a product with the mask: NaN or infinity at a masked position must not survive
    per_caption = losses.masked_fill(~loss_mask, 0.0).sum(-1)
    if reduction == "seq_mean":
        per_caption = per_caption / loss_mask.sum(-1).clamp(min=1)
    return per_caption.sum()


def check_stop(rollout: Decoding, learn_eos: bool) -> None:
    if rollout.stop is not None and learn_eos:
        raise UsageError(
            f"after rollout.stop={rollout.stop!r} EOS is certain and not a choice to be learned; expected "
            "learn_eos=false, got true; set objective.learn_eos=false"
        )


def check_sampling(
    objective: str, rollout: Decoding, num_samples: int, baseline: str, takes_beams: bool = False
) -> None:
    """Raise UsageError for combinations of rollout and baseline that cannot work."""
    if rollout.method == "beam" and not takes_beams:
        raise UsageError(
            f"{objective} learns from sampled or greedy captions; got rollout.method=beam; set sample or greedy"
        )
    if rollout.guide is not None:
        raise UsageError(
            f"{objective} learns from captions of the policy itself, whose log-probabilities those of guided decoding "
            "are not; got rollout.guide; leave it out, and guide the trained captioner with decoding=guided"
        )
    if rollout.prompt:
        raise UsageError(
            f"{objective} learns every word of a caption, and those of rollout.prompt are given, not written; got "
            f"{rollout.prompt!r}; leave it out, and set decoding.prompt when the trained captioner writes"
        )
    if rollout.method == "greedy" and num_samples > 1:
        raise UsageError(
            f"a greedy rollout gives one caption per image; got num_samples={num_samples}; set num_samples=1"
        )
    if baseline in ("leave_one_out", "group") and num_samples == 1:
        raise UsageError(
            f"baseline={baseline} compares the samples of an image; got num_samples={num_samples}; set it to 2 or more"
        )
    if baseline == "greedy" and rollout.method == "greedy":
        raise UsageError(
            "with baseline=greedy all advantages of a greedy rollout are 0; use baseline=running_mean, ema or none"
        )
