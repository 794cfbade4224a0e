"""Direct CLIP-based optimization: an image's best caption against its others, by what each has gained on the reference.

B images, K samples per image, M predicted tokens.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from capkit.decoding.config import Decoding
from capkit.errors import UsageError
from capkit.objectives.policy.base import check_sampling, check_stop, learned_tokens, reduce_losses
from capkit.types import Samples
from capkit.utils.ranges import AtLeastTwo, NonNegativeFloat, PositiveFloat, check_ranges

BEAMS = Decoding(method="beam", num_beams=5)


@check_ranges
class DiCO:
    """-log sigmoid(h), h = beta (g_w - sum_l gamma_l g_l), the mean over images; w has the highest reward of an image.

    g_k = log pi(k) - log pi_ref(k) is what caption k has gained on the policy that the run started from, in nats, and
    gamma = softmax over the others l of tau (r_w - r_l): the worse a caption, the more it is pushed down (Moratelli et
    al. 2024, arXiv 2408.14547). With two captions of an image this is DPO. A caption without a reward is in no
    comparison, and an image with fewer than two that have one, or whose rewards are all equal, is left out.

    Logs, as means over images, `margin` h and `accuracy` (1 where h > 0, half of it where h = 0).

    Deliberate difference: (1) of equal best rewards the first caption is w.

    Args:
        rollout: How candidates are written, always without dropout; published: the five beams.
        num_samples: Candidates per image.
        beta: How much a departure from the reference counts.
        tau: How much a difference of rewards counts; made for PAC-S, whose differences are of some hundredths. 0: all
            others count the same.
        learn_eos: Whether EOS is a learned token.
        max_logprob_gap: Warn if written and teacher-forced log-probabilities differ by more nats per token on average.

    Raises UsageError for a rollout that gives fewer candidates, and for those that no policy can learn from.
    """

    needs_greedy, inner_updates, dropout, against_reference = False, 1, False, True
    kl, kl_weight = "none", 0.0  # the reference is in the loss

    def __init__(
        self,
        rollout: Decoding = BEAMS,
        num_samples: AtLeastTwo = 5,
        beta: PositiveFloat = 0.2,
        tau: NonNegativeFloat = 300.0,
        learn_eos: bool = True,
        max_logprob_gap: PositiveFloat = 0.05,
    ) -> None:
        if rollout.method == "beam" and rollout.num_beams < num_samples:
            raise UsageError(
                f"DiCO compares num_samples={num_samples} captions of an image; expected as many beams, got "
                f"rollout.num_beams={rollout.num_beams}; raise it, or lower num_samples"
            )
        check_sampling("DiCO", rollout, num_samples, "none", takes_beams=True)
        check_stop(rollout, learn_eos)
        self.rollout, self.num_samples, self.learn_eos = rollout, num_samples, learn_eos
        self.beta, self.tau, self.max_logprob_gap = float(beta), float(tau), max_logprob_gap

    def loss_mask(self, samples: Samples, prompt_length: int) -> Bool[Tensor, "B K M"]:
        return learned_tokens(samples, prompt_length, self.learn_eos)

    def advantages(
        self, rewards: Float[Tensor, "B K"], greedy_rewards: Float[Tensor, " B"] | None
    ) -> Float[Tensor, "B K"]:
        """The weight of each caption in h: 1 of the best, -gamma of the others; NaN of those that are left out."""
        values = rewards.double()
        scored = ~values.isnan()
        low, high = values.masked_fill(~scored, torch.inf), values.masked_fill(~scored, -torch.inf)
        best, place = high.max(-1, keepdim=True)[0], high.argmax(-1, keepdim=True)
        is_best = torch.zeros_like(scored).scatter(-1, place, True)
        others = scored & ~is_best
        shares = (self.tau * (best - low)).masked_fill(~others, -torch.inf).softmax(-1)
        is_compared = scored & (best > low.min(-1, keepdim=True)[0])
        return torch.where(is_best, 1.0, -shares).masked_fill(~is_compared, torch.nan).float()

    def num_targets(self, loss_mask: Bool[Tensor, "B K M"]) -> Tensor:
        """The number of images that are compared."""
        return loss_mask.flatten(1).any(-1).sum()

    def loss(
        self,
        logprobs: Float[Tensor, "B K M"],
        old_logprobs: Float[Tensor, "B K M"],
        advantages: Float[Tensor, "B K"],
        loss_mask: Bool[Tensor, "B K M"],
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """`old_logprobs` are the reference's."""
        gained = (logprobs - old_logprobs).masked_fill(~loss_mask, 0.0).sum(-1)
        margin = self.beta * (advantages * gained).sum(-1)
        is_compared = loss_mask.flatten(1).any(-1)
        losses = -logsigmoid(margin).masked_fill(~is_compared, 0.0)
        known = margin.detach()
        accuracy = ((torch.sign(known) + 1) / 2).masked_fill(~is_compared, 0.0)
        return losses.sum(), {"margin": known.masked_fill(~is_compared, 0.0).sum(), "accuracy": accuracy.sum()}

    def reduce(self, losses: Float[Tensor, "B K M"], loss_mask: Bool[Tensor, "B K M"]) -> Float[Tensor, ""]:
        return reduce_losses(losses, loss_mask, "seq_sum")

    def logs(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is kept across batches."""
