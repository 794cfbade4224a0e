"""The protocol of preference objectives.

B pairs; their two captions stand in the order chosen, rejected; M predicted tokens.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass
class PreferenceOutput:
    """A loss summed over pairs, with gradient; and sums over pairs to log, detached."""

    loss_sum: Float[Tensor, ""]
    sums: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class PreferenceObjective(Protocol):
    """A loss of pairs, divided by the number of pairs of the global batch. `max_drop`: see `DPO`."""

    max_drop: float

    def __call__(
        self, logprobs: Float[Tensor, "B 2 M"], reference: Float[Tensor, "B 2"], mask: Bool[Tensor, "B 2 M"]
    ) -> PreferenceOutput:
        """`logprobs` of the policy in nats, of which those at `mask` count; `reference`: sums over the same tokens."""
        ...
