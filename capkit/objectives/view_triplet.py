"""Likelihood, and image features that are alike for views of one object (Galliena et al. 2025, arXiv 2504.08531).

B images of a micro-batch, N images of the whole step on all ranks, S states of an image, D their width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from capkit.distributed.collectives import UnevenGather, all_reduce_sum
from capkit.errors import UsageError
from capkit.objectives.base import Objective
from capkit.objectives.cross_entropy import LikelihoodModel
from capkit.types import CaptionBatch, Context, ObjectiveOutput
from capkit.utils.ranges import NonNegativeFloat, PositiveFloat, check_ranges


def batch_hard(
    features: Float[Tensor, "N D"], objects: Int[Tensor, " N"], margin: float
) -> tuple[Float[Tensor, " N"], Bool[Tensor, " N"]]:
    """Each image's max(0, margin + farthest view of its object - nearest image of another), and whether it has both.

    Hermans et al. 2017 (arXiv 1703.07737, equation 5), by Euclidean distance, whose gradient is 0 where it is 0. Images
    of no object (-1) are neither. The loss of an image without another view, or without a negative, is 0.
    """
    distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    known = objects >= 0
    same = objects[:, None] == objects[None]
    itself = torch.eye(len(objects), dtype=torch.bool, device=objects.device)
    positive, negative = same & known & ~itself, ~same & known & known[:, None]
    farthest = distances.masked_fill(~positive, -torch.inf).amax(1)
    nearest = distances.masked_fill(~negative, torch.inf).amin(1)
    return (margin + farthest - nearest).relu(), positive.any(1) & negative.any(1)


def view_features(context: Context) -> Float[Tensor, "B D"]:
    """The mean of the states that decoding attends to, in float32, unnormalised."""
    if not context.states.shape[1]:
        raise UsageError(
            "objective=view_triplet compares pictures, got a captioner that reads text alone; set "
            "objective=cross_entropy, or choose another model"
        )
    states = context.states.float()
    if context.mask is None:
        return states.mean(1)
    attended = context.mask[..., None]
    return (states * attended).sum(1) / attended.sum(1).clamp(min=1)


@check_ranges
class ViewTriplet:
    """An objective of captions plus `weight` times the batch-hard triplet loss of image features.

    An image's features are the mean of its context's states. Anchor and positive are views of one object
    (`CaptionBatch.objects`), the negative shows another one. The pool that the hardest ones are sought in is the whole
    optimizer step, over all micro-batches and ranks, and so is the mean, over images with a positive and a negative: a
    batch gives the same gradient however it is cut. For that, a step encodes its images twice: first without gradient,
    to find how the loss changes with each image's features, and then micro-batch by micro-batch. What is random in the
    encoder (dropout) is drawn anew.

    Logs `triplet` (the loss), and `triplet_violations` (share of anchors with a loss above 0). Where no gradient is
    wanted, as in validation, it is the captions' objective alone.

    Raises UsageError for batches without `objects`, and for a step of training in which no image has a positive and a
    negative.

    Args:
        likelihood: The captions' objective.
        weight: .1 in the paper.
        margin: In units of the features; 2 in the paper.
    """

    def __init__(self, likelihood: Objective, weight: NonNegativeFloat = 0.1, margin: PositiveFloat = 2.0) -> None:
        self.likelihood, self.weight, self.margin = likelihood, weight, margin

    def num_targets(self, batch: CaptionBatch) -> Tensor:
        return self.likelihood.num_targets(batch)

    def __call__(self, model: Any, batch: CaptionBatch, step: int) -> ObjectiveOutput:
        """With the batch as the pool, without communication. A batch without any triplet has a triplet loss of 0."""
        if not torch.is_grad_enabled():
            return self.likelihood(model, batch, step)
        context = model.encode(batch)
        output = self.likelihood(_Encoded(model, context), batch, step)
        losses, is_anchor = batch_hard(view_features(context), _objects(batch), self.margin)
        triplet = losses.sum() / is_anchor.sum().clamp(min=1)
        return ObjectiveOutput(
            loss_sum=output.loss_sum + self.weight * output.num_targets * triplet,
            num_targets=output.num_targets,
            logs={**output.logs, **_logs(losses, is_anchor)},
        )

    def for_parts(self, model: Any, parts: Sequence[CaptionBatch], step: int) -> list[Objective]:
        """See `PooledObjective`. All ranks must call it."""
        with torch.no_grad():
            own = torch.cat([view_features(model.encode(part)) for part in parts])
        rows = UnevenGather(len(own))
        objects = rows.gather(torch.cat([_objects(part) for part in parts]))
        features = rows.gather(own).requires_grad_()
        losses, is_anchor = batch_hard(features, objects, self.margin)
        if not is_anchor.any():
            raise UsageError(
                "objective=view_triplet: expected two views of an object and another object in each step, got "
                f"{len(objects)} images of {len(objects.unique())}; set curriculum=views, or raise data.batch_size"
            )
        (gradient,) = torch.autograd.grad(losses.sum() / is_anchor.sum(), features)
        num_targets = all_reduce_sum(torch.stack([self.num_targets(part) for part in parts]).sum())
        sizes = [len(part) for part in parts]
        shares = (losses.detach() / is_anchor.sum())[rows.own].split(sizes)
        gradients = gradient[rows.own].split(sizes)
        logs = _logs(losses, is_anchor)
        return [
            _OfPart(self.likelihood, self.weight * num_targets, share.sum(), own_gradient, logs)
            for share, own_gradient in zip(shares, gradients, strict=True)
        ]


def _logs(losses: Float[Tensor, " N"], is_anchor: Bool[Tensor, " N"]) -> dict[str, Tensor]:
    losses, number = losses.detach(), is_anchor.sum().clamp(min=1)
    return {"triplet": losses.sum() / number, "triplet_violations": (losses > 0).sum() / number}


@dataclass(frozen=True)
class _OfPart:
    """`ViewTriplet` of one micro-batch of a step.

    `share` is its part of the step's triplet loss, `gradient` that of the whole loss with respect to its features.
    `scale` undoes the division by the step's number of targets.
    """

    likelihood: Objective
    scale: Tensor
    share: Float[Tensor, ""]
    gradient: Float[Tensor, "B D"]
    logs: dict[str, Tensor]

    def num_targets(self, batch: CaptionBatch) -> Tensor:
        return self.likelihood.num_targets(batch)

    def __call__(self, model: Any, batch: CaptionBatch, step: int) -> ObjectiveOutput:
        context = model.encode(batch)
        output = self.likelihood(_Encoded(model, context), batch, step)
        features = view_features(context)
        moved = ((features - features.detach()) * self.gradient).sum()  # 0, with the gradient of the step's loss
        return ObjectiveOutput(
            loss_sum=output.loss_sum + self.scale * (self.share + moved),
            num_targets=output.num_targets,
            logs={**output.logs, **self.logs},
        )


@dataclass(frozen=True)
class _Encoded:
    """A captioner whose images are encoded already."""

    model: LikelihoodModel
    context: Context

    def encode(self, batch: CaptionBatch) -> Context:
        return self.context

    def token_losses(
        self, context: Context, tokens: Int[Tensor, "B K L"], mask: Bool[Tensor, "B K L"], label_smoothing: float
    ) -> Float[Tensor, "B K M"]:
        return self.model.token_losses(context, tokens, mask, label_smoothing)


def _objects(batch: CaptionBatch) -> Int[Tensor, " B"]:
    if batch.objects is None:
        raise UsageError(
            "objective=view_triplet expected records with `object`, got a batch without any; name what each picture "
            "shows (docs/views.md), or set objective=cross_entropy"
        )
    return batch.objects
