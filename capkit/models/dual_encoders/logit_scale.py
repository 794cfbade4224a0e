"""The learned temperature of contrastive losses."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capkit.errors import UsageError


class LogitScale(nn.Module):
    """Learned multiplier of cosines, stored as its logarithm (Radford et al. 2021), and SigLIP's learned bias.

    `start` is 1 / temperature: 1 / 0.07 in CLIP, 1 in ALIGN, 10 with a bias of -10 in SigLIP. The logarithm is clamped
    in place before each use: the multiplier never exceeds `maximum` (100 in CLIP), and shrinks again as soon as the
    gradient changes sign. Without the clamp it grows until the loss is NaN.
    """

    def __init__(
        self, start: float = 1 / 0.07, maximum: float = 100.0, learned: bool = True, bias: float | None = None
    ) -> None:
        super().__init__()
        if not 0 < start <= maximum:
            raise UsageError(f"logit_scale must be above 0 and at most its maximum; got {start} and {maximum}")
        self.maximum = maximum
        self.log_scale = nn.Parameter(torch.tensor(math.log(start)), requires_grad=learned)
        self.bias = None if bias is None else nn.Parameter(torch.tensor(bias), requires_grad=learned)

    def forward(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """The multiplier, and the bias or None."""
        with torch.no_grad():
            self.log_scale.clamp_(*self.parameter_bounds()["log_scale"])
        return self.log_scale.exp(), self.bias

    def parameter_bounds(self) -> dict[str, tuple[float, float]]:
        """See `capkit.types.BoundedModule`."""
        return {"log_scale": (-math.inf, math.log(self.maximum))}


def network_logit_scale(network: Any) -> float:
    """The factor that a dual encoder of transformers multiplies cosines by."""
    if hasattr(network, "temperature"):  # ALIGN
        return 1 / float(network.temperature.detach())
    return float(network.logit_scale.detach().exp())
