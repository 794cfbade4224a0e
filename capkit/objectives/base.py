"""The protocols of objectives: losses of captions given images, and losses of image-text pairs."""

from collections.abc import Sequence
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
class PooledObjective(Objective, Protocol):
    """An Objective that compares the images of a whole optimizer step with each other."""

    def for_parts(self, model: Any, parts: Sequence[CaptionBatch], step: int) -> list[Objective]:
        """An objective for each of the micro-batches that are this rank's share of the step.

        Called on all ranks, before the first of them is computed; may communicate, and run the model without gradient.
        """
        ...


def objectives_of(objective: Objective, model: Any, parts: Sequence[CaptionBatch], step: int) -> list[Objective]:
    """The objective of each micro-batch of a step: one of its own where the step's images are compared."""
    if isinstance(objective, PooledObjective):
        return objective.for_parts(model, parts, step)
    return [objective] * len(parts)


@runtime_checkable
class PairObjective(Protocol):
    """A loss that compares images and captions with each other over the global batch."""

    def __call__(self, pairs: PairEmbeddings, step: int) -> PairLoss: ...


@runtime_checkable
class Preparing(Protocol):
    """A PairObjective that needs more of the dual encoder than the embeddings, and says so before training."""

    def prepare(self, model: Any) -> None:
        """Ask a `TrainableDualEncoder` for further outputs (its `extras`)."""
        ...


def prepare(objective: PairObjective, model: Any) -> None:
    if isinstance(objective, Preparing):
        objective.prepare(model)
