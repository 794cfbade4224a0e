"""Maximum likelihood with teacher forcing: cross-entropy of the reference captions."""

from typing import Annotated, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from capkit.errors import UsageError
from capkit.objectives.image_dropout import drop_images
from capkit.types import CaptionBatch, Context, ObjectiveOutput
from capkit.utils.ranges import Probability, Range, Seed, check_ranges


@runtime_checkable
class LikelihoodModel(Protocol):
    def encode(self, batch: CaptionBatch) -> Context: ...

    def token_losses(
        self, context: Context, tokens: Int[Tensor, "B K L"], mask: Bool[Tensor, "B K L"], label_smoothing: float
    ) -> Float[Tensor, "B K M"]: ...


@check_ranges
class CrossEntropy:
    """Negative log-likelihood of each reference token given the image and the tokens before it, in nats.

    Targets are all tokens after the prompt, EOS included. They are read from `batch.mask`, never from token ids, so
    that EOS counts even if the tokenizer also pads with it.

    Args:
        label_smoothing: e in [0, 1): the target distribution puts 1 - e on the reference token and spreads e evenly
            over the vocabulary (Szegedy et al. 2016, section 7).
        image_dropout: Share of images that are missing in a step, for `decoding=guided` (`drop_images`).
        seed: Of the draws of missing images.
        weigh_by_score: Multiply each caption's losses by its score (`batch.scores`), or by 0 where that is negative or
            absent: an alternative to alignment levels (NoC, Kang et al. 2023, arXiv 2212.13563). The divisor stays the
            number of targets. Losses of validation are not weighted.
    """

    def __init__(
        self,
        label_smoothing: Annotated[float | int, Range(0, below=1)] = 0.0,
        image_dropout: Probability = 0.0,
        seed: Seed = 0,
        weigh_by_score: bool = False,
    ) -> None:
        self.label_smoothing, self.image_dropout, self.seed = label_smoothing, image_dropout, seed
        self.weigh_by_score = weigh_by_score

    @staticmethod
    def target_mask(batch: CaptionBatch) -> Bool[Tensor, "B K M"]:
        """True at the learned tokens among `tokens[..., 1:]`: real ones after the prompt."""
        if batch.mask is None:
            raise UsageError(
                "objective=cross_entropy expected captions in every batch, got images only; use data with captions"
            )
        mask = batch.mask[..., 1:].clone()
        mask[..., : batch.prompt_length - 1] = False  # prompt_length counts BOS, which is no target
        return mask

    def num_targets(self, batch: CaptionBatch) -> Int[Tensor, ""]:
        """The number of learned tokens in the batch."""
        return self.target_mask(batch).sum()

    def __call__(self, model: LikelihoodModel, batch: CaptionBatch, step: int) -> ObjectiveOutput:
        mask = self.target_mask(batch)
        assert batch.tokens is not None and batch.mask is not None
        context = model.encode(batch)
        if self.image_dropout and torch.is_grad_enabled():  # not of a validation loss
            context = drop_images(context, self.image_dropout, self.seed, step)
        losses = model.token_losses(context, batch.tokens, batch.mask, self.label_smoothing)
        if self.weigh_by_score and torch.is_grad_enabled():
            losses = losses * _weights(batch)[..., None]
        return ObjectiveOutput(loss_sum=(losses * mask).sum(), num_targets=mask.sum())


def _weights(batch: CaptionBatch) -> Float[Tensor, "B K"]:
    if batch.scores is None:
        raise UsageError(
            "objective.weigh_by_score expected captions with scores, got none in a batch; score them by `capkit align` "
            "and train on the manifest that it writes"
        )
    return batch.scores.nan_to_num(0.0).clamp(min=0)
