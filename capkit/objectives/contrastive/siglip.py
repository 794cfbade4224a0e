"""Sigmoid loss over all image-caption combinations of the global batch (SigLIP)."""

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.distributed.collectives import all_reduce_sum
from capkit.errors import UsageError, check_choice
from capkit.objectives.contrastive.pairs import (
    DUPLICATES,
    Captions,
    highest,
    in_blocks,
    similarities,
)
from capkit.types import PairEmbeddings, PairLoss
from capkit.utils.ranges import PositiveInt, check_ranges


@check_ranges
class SigLIP:
    """Binary classification of every image-caption combination as matching or not (Zhai et al. 2023, equation 1).

        loss = - 1/N sum_i sum_j log sigmoid(z_ij (logit_scale * cosine(image i, caption j) + logit_bias))

    over the N images and all captions of all ranks, in nats; z_ij is 1 if image i owns caption j, else -1. The sum is
    divided by the number of images, not of pairs, as published.

    Logits are float32, computed for blocks of `chunk_rows` images of this rank against all captions and recomputed in
    the backward pass. Logs, equal on all ranks: `accuracy_i2t` (among images with a caption, the share whose most
    similar caption is a positive; a tie is a miss), `logit_scale`, `logit_bias`.

    Args:
        duplicates: How to treat captions whose text equals one of image i's captions but whose owner is another image.
            "positive": z_ij = 1; "mask": left out of the sum; "negative": z_ij = -1, as published.
        chunk_rows: Images per block.
    """

    def __init__(self, duplicates: str = "positive", chunk_rows: PositiveInt = 1024) -> None:
        check_choice("objective.duplicates", duplicates, DUPLICATES)
        self.duplicates, self.chunk_rows = duplicates, chunk_rows

    def __call__(self, pairs: PairEmbeddings, step: int) -> PairLoss:
        """Raises UsageError if the pairs have no `logit_bias`."""
        if pairs.logit_bias is None:
            raise UsageError(
                "objective=siglip expected a dual encoder with logit_bias, got none; set e.g. model.logit_bias=-10"
            )
        scale, bias = pairs.logit_scale.float(), pairs.logit_bias.float()
        captions = Captions.gather(pairs)

        def block(rows: slice) -> tuple[Float[Tensor, ""], Float[Tensor, " 2"]]:
            logits = scale * similarities(pairs.images[rows], captions.texts) + bias
            positive, candidate = captions.positives(pairs.image_ids[rows], self.duplicates)
            loss = torch.nn.functional.softplus(torch.where(positive, -logits, logits))  # -log sigmoid(z x)
            counted = positive.any(1)  # images without a caption of their own enter the loss, but not the accuracy
            fixed = logits.detach()
            hits = counted & (highest(fixed, positive) > highest(fixed, candidate & ~positive))
            return (loss * candidate).sum(), torch.stack([hits.sum(), counted.sum()]).float()

        losses, tallies = zip(*in_blocks(block, len(pairs.images), self.chunk_rows), strict=True)
        counts = torch.stack([*torch.stack(tallies).sum(0), scale.new_tensor(float(len(pairs.images)))])
        num_hits, num_counted, num_images = all_reduce_sum(counts)
        logs = {
            "accuracy_i2t": num_hits / num_counted.clamp(min=1),
            "logit_scale": scale.detach(),
            "logit_bias": bias.detach(),
        }
        return PairLoss(torch.stack(losses).sum() / num_images.clamp(min=1), logs)
