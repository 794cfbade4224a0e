"""Likelihood of a modular captioner, whose controller learns which module each word is for (CNM, CVLNM).

B images, K captions of each, L tokens, T = L - 1 that are read, M blocks.
"""

from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from capkit.errors import UsageError
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.scheduled_sampling import StepwiseModel, sampled_inputs
from capkit.optim.schedules import Schedule, require_total_steps, value_at
from capkit.text.word_classes import MODULES
from capkit.types import CaptionBatch, Context, ObjectiveOutput
from capkit.utils.ranges import NonNegativeFloat, PositiveInt, Probability, Seed, check_ranges


@runtime_checkable
class WeighingModel(Protocol):
    """A captioner of modules (`capkit.models.captioners.modular`)."""

    def encode(self, batch: CaptionBatch) -> Context: ...

    def token_losses_and_weights(
        self,
        context: Context,
        tokens: Int[Tensor, "B K L"],
        mask: Bool[Tensor, "B K L"],
        label_smoothing: float,
        inputs: Int[Tensor, "B K T"] | None = None,
    ) -> tuple[Float[Tensor, "B K L-1"], Float[Tensor, "B K L-1 M 4"]]: ...


@check_ranges
class ModularLikelihood:
    """Cross-entropy of the reference tokens + weight x -log w of each word's own module, in nats, w the controller's.

    (Yang et al. 2019, section 3.3; 2022 with weight .1.) Classes of words are the batch's (`data.word_classes`). Every
    target has one: the end and marks are functions. So one divisor, the number of targets, serves both terms. Losses
    of validation are the cross-entropy alone. Logs `controller_accuracy`, the share of targets whose module has the
    largest weight in the last block, and `modules/CLASS/MODULE`, the weight of this module at targets of this class, as
    a share of all targets: the four of a class sum to its share.

    Args:
        weight: Of the controller's term; may be a Schedule.
        total_steps: Length of training that a Schedule refers to (in a config: `total_steps: ${max_steps}`).
        sampling: Probability of scheduled sampling (`capkit.objectives.scheduled_sampling`); may be a Schedule.
            Validation reads the references.
        seed: Of its draws.
        blocks: Whose weights are meant: of the "last" block, or "all" of them, in the mean.
        label_smoothing: As of CrossEntropy.

    Raises UsageError for a batch without classes, for a model without modules, and with `sampling` for one that does
    not read word by word.
    """

    def __init__(
        self,
        weight: NonNegativeFloat | Schedule = 1.0,
        total_steps: PositiveInt | None = None,
        blocks: Literal["last", "all"] = "last",
        label_smoothing: NonNegativeFloat = 0.0,
        sampling: Probability | Schedule = 0.0,
        seed: Seed = 0,
    ) -> None:
        for name, value in (("weight", weight), ("sampling", sampling)):
            require_total_steps(name, value, total_steps)
        self.weight, self.total_steps, self.blocks = weight, total_steps, blocks
        self.sampling, self.seed = sampling, seed
        self._likelihood = CrossEntropy(label_smoothing)

    @property
    def writes_in_training(self) -> bool:
        """Whether a training step samples words."""
        return isinstance(self.sampling, Schedule) or self.sampling > 0

    def num_targets(self, batch: CaptionBatch) -> Int[Tensor, ""]:
        """The number of learned tokens in the batch."""
        return self._likelihood.num_targets(batch)

    def __call__(self, model: Any, batch: CaptionBatch, step: int) -> ObjectiveOutput:
        mask = self._likelihood.target_mask(batch)
        assert batch.tokens is not None and batch.mask is not None
        if not isinstance(model, WeighingModel):
            raise UsageError(f"objective=modular expected model=modular, got {type(model).__name__}; choose that model")
        context, inputs = model.encode(batch), None
        probability = value_at(self.sampling, step, self.total_steps) if torch.is_grad_enabled() else 0.0
        if probability > 0:
            if not isinstance(model, StepwiseModel):
                raise UsageError(
                    f"objective.sampling={probability:g}: expected a captioner that reads word by word, got "
                    f"{type(model).__name__}; set objective.sampling=0"
                )
            inputs = sampled_inputs(model, context, batch, probability, self.seed, step)
        losses, weights = model.token_losses_and_weights(
            context, batch.tokens, batch.mask, self._likelihood.label_smoothing, inputs
        )
        loss_sum = (losses * mask).sum()
        if not torch.is_grad_enabled():
            return ObjectiveOutput(loss_sum, mask.sum())
        classes = _classes(batch)
        own = weights.gather(-1, classes[..., None, None].expand(*weights.shape[:-1], 1)).squeeze(-1)  # (B K L-1 M)
        surprise = -own.float().clamp(min=torch.finfo(torch.float32).tiny).log()
        surprise = surprise[..., -1] if self.blocks == "last" else surprise.mean(-1)
        right = (weights[..., -1, :].argmax(-1) == classes) & mask
        count = mask.sum().clamp(min=1)
        logs = {"controller_accuracy": right.sum() / count}
        of_class = torch.nn.functional.one_hot(classes, len(MODULES)) * mask[..., None]
        said = torch.einsum("bktc,bktm->cm", of_class.to(weights), weights[..., -1, :].detach()) / count
        for name, row in zip(MODULES, said, strict=True):
            logs |= {f"modules/{name}/{module}": share for module, share in zip(MODULES, row, strict=True)}
        weight = value_at(self.weight, step, self.total_steps)
        return ObjectiveOutput(loss_sum + weight * (surprise * mask).sum(), mask.sum(), logs)


def _classes(batch: CaptionBatch) -> Int[Tensor, "B K M"]:
    if batch.word_classes is None:
        raise UsageError(
            "objective=modular expected the class of each word in every batch, got none; give data.word_classes "
            "(docs/modular.md)"
        )
    return batch.word_classes[..., 1:].clamp(min=0)
