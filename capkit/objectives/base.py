"""The protocols of objectives: losses of captions given images, and losses of image-text pairs."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from capkit.types import CaptionBatch, ObjectiveOutput, PairEmbeddings, PairLoss


@runtime_checkable
class Objective(Protocol):
    """A loss of a batch's captions, as a sum over targets that is divided by their global number."""

    def num_targets(self, batch: CaptionBatch) -> Tensor:
        """The divisor of `loss_sum`; known before the forward pass, so that it can be summed over ranks."""
        ...

    def __call__(self, model: Any, batch: CaptionBatch, step: int) -> ObjectiveOutput: ...


@runtime_checkable
class PairObjective(Protocol):
    """A loss that compares images and captions with each other over the global batch."""

    def __call__(self, pairs: PairEmbeddings, step: int) -> PairLoss: ...
