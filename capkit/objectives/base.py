"""What an objective must offer."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from capkit.types import CaptionBatch, ObjectiveOutput, PairEmbeddings, PairLoss


@runtime_checkable
class Objective(Protocol):
    def num_targets(self, batch: CaptionBatch) -> Tensor:
        """What `loss_sum` is divided by, known before any forward pass."""
        ...

    def __call__(self, model: Any, batch: CaptionBatch, step: int) -> ObjectiveOutput: ...


@runtime_checkable
class PairObjective(Protocol):
    """A loss of images and captions that are compared with each other, over the global batch."""

    def __call__(self, pairs: PairEmbeddings, step: int) -> PairLoss: ...
