"""Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290).

B pairs; their two captions stand in the order chosen, rejected; M predicted tokens.
"""

from typing import Annotated

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from capkit.objectives.preference.base import PreferenceOutput
from capkit.utils.ranges import NonNegativeFloat, PositiveFloat, Range, check_ranges


@check_ranges
class DPO:
    """-log sigmoid(h), h = beta ((log pi - log pi_ref)(chosen) - (log pi - log pi_ref)(rejected)); equation 7.

    Sums over pairs to log: `margin` h, `accuracy` (1 where h > 0, half of it where h = 0), the log-probabilities
    `chosen_logprob` and `rejected_logprob` of whole captions in nats, and `chosen_drop`, how far that of the chosen one
    has fallen below the reference's, in nats a token: the loss only widens a difference, and in many runs both fall.

    Args:
        beta: How much a departure from the reference counts.
        label_smoothing: e: the share of pairs whose sides are taken to be exchanged, (1 - e) L(h) + e L(-h)
            ("conservative DPO", Mitchell 2023).
        per_token: Divide each caption's log-probabilities by its number of tokens: length alone then gives no margin.
        likelihood: Weight of -log pi(chosen) / its tokens, which keeps the chosen probable (Pang et al. 2024, arXiv
            2404.19733, equation 2).
        max_drop: Warn if `chosen_drop` is larger than this on average over a step.
    """

    def __init__(
        self,
        beta: PositiveFloat = 0.1,
        label_smoothing: Annotated[float | int, Range(0, below=0.5)] = 0.0,
        per_token: bool = False,
        likelihood: NonNegativeFloat = 0.0,
        max_drop: PositiveFloat = 0.5,
    ) -> None:
        self.beta, self.label_smoothing, self.per_token = float(beta), float(label_smoothing), per_token
        self.likelihood, self.max_drop = float(likelihood), float(max_drop)

    def __call__(
        self, logprobs: Float[Tensor, "B 2 M"], reference: Float[Tensor, "B 2"], mask: Bool[Tensor, "B 2 M"]
    ) -> PreferenceOutput:
        policy, length = logprobs.masked_fill(~mask, 0.0).sum(-1), mask.sum(-1).clamp(min=1)
        gained = policy - reference
        counted = gained / length if self.per_token else gained
        margin = self.beta * (counted[:, 0] - counted[:, 1])
        losses = -(1 - self.label_smoothing) * logsigmoid(margin) - self.label_smoothing * logsigmoid(-margin)
        if self.likelihood:
            losses = losses - self.likelihood * policy[:, 0] / length[:, 0]
        known = margin.detach()
        sums = {
            "margin": known,
            "accuracy": (torch.sign(known) + 1) / 2,
            "chosen_logprob": policy[:, 0].detach(),
            "rejected_logprob": policy[:, 1].detach(),
            "chosen_drop": (-gained / length)[:, 0].detach(),
        }
        return PreferenceOutput(losses.sum(), {name: values.sum() for name, values in sums.items()})
