"""Statistics of a rollout to log, each as (sum, count) on this rank."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from capkit.distributed.collectives import Sums
from capkit.scorers.reward import Scores
from capkit.types import Samples


def reward_sums(scores: Scores, num_samples: int) -> Sums:
    """Reward terms and total over the first `num_samples` captions of each image; unscored captions are left out.

    `reward/zero_spread`: fraction of images whose captions all have the same total, which gives no learning signal.
    """
    total = scores.total[:, :num_samples]
    sums: Sums = {"reward/total": sum_of(total)}
    for name in scores.raw:
        sums[f"reward/{name}"] = sum_of(scores.raw[name][:, :num_samples])
        sums[f"reward/{name}_weighted"] = sum_of(scores.weighted[name][:, :num_samples])
    if num_samples > 1:
        spread = total.nan_to_num(-torch.inf).amax(-1) > total.nan_to_num(torch.inf).amin(-1)
        sums["reward/zero_spread"] = ((~spread).sum(), len(total))
    return sums


def policy_sums(samples: Samples, loss_mask: Bool[Tensor, "B K M"]) -> Sums:
    """Surprise in nats per learned token, learned tokens per caption, and fraction of captions that did not end."""
    assert samples.logprobs is not None and samples.ended is not None
    surprise = -samples.logprobs.masked_fill(~loss_mask, 0.0).sum()
    return {
        "rl/entropy": (surprise, loss_mask.sum()),
        "rl/tokens": (loss_mask.sum(), loss_mask.any(-1).sum()),
        "rl/hit_max_length": ((~samples.ended).sum(), samples.ended.numel()),
    }


def ratio_sums(
    policy: Float[Tensor, "B K M"], server: Float[Tensor, "B K M"], loss_mask: Bool[Tensor, "B K M"]
) -> Sums:
    """Importance ratio of a token, policy over the server that wrote it: its mean, and its mean distance from 1."""
    ratio = (policy - server).masked_fill(~loss_mask, 0.0).exp()
    count = loss_mask.sum()
    return {
        "rl/server_ratio": (ratio.masked_fill(~loss_mask, 0.0).sum(), count),
        "rl/server_ratio_off": ((ratio - 1).abs().sum(), count),
    }


def sum_of(values: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and count of the values that are not NaN."""
    return values.nansum().double(), (~values.isnan()).sum()
