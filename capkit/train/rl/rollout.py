"""Rollouts: sampled captions of a batch, split and concatenated without changing a token.

B images, K samples per image, L tokens, M = L - 1 predicted tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from capkit.types import CaptionBatch, Samples

# Who wrote a rollout's captions: the policy in this process, a server with its weights, or one with earlier weights.
Writer = Literal["policy", "server", "earlier policy"]


@dataclass
class Rollout:
    """Everything that updates on a batch of samples need.

    `advantages` hold no NaN: `loss_mask` is False throughout captions that are left out. `old_logprobs` come from the
    policy that sampled, on the support it sampled from; `reference` from the reference policy, untruncated. Both are at
    the rollout's temperature. `begun`: the first update's log-probabilities with gradient, where that pass has been
    launched already; parts of a rollout have none.
    """

    batch: CaptionBatch
    samples: Samples
    loss_mask: Bool[Tensor, "B K M"]
    advantages: Float[Tensor, "B K"]
    old_logprobs: Float[Tensor, "B K M"] | None = None
    reference: Float[Tensor, "B K M"] | None = None
    begun: Float[Tensor, "B K M"] | None = None
    writer: Writer = "policy"

    def parts(self, size: int | None) -> Iterator["Rollout"]:
        """Split into parts of `size` images with captions of similar length, each trimmed to its longest caption.

        A whole rollout stays as it is on a GPU: it ends with its longest caption, and to look again would wait. So does
        one whose update has begun.
        """
        size = size or len(self.batch)
        if size >= len(self.batch) and (self.loss_mask.is_cuda or self.begun is not None):
            yield self
            return
        order = list(range(len(self.batch)))
        if size < len(order):
            assert self.samples.mask is not None
            order = self.samples.mask.sum(-1).amax(-1).argsort(stable=True).tolist()
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            samples = trim(self.samples.images(rows))
            assert samples.tokens is not None
            length = samples.tokens.shape[-1] - 1
            batch = self.batch.select(rows).trim()
            old_logprobs, reference = (
                None if x is None else x[rows][..., :length] for x in (self.old_logprobs, self.reference)
            )
            loss_mask, advantages = self.loss_mask[rows][..., :length], self.advantages[rows]
            yield Rollout(batch, samples, loss_mask, advantages, old_logprobs, reference, writer=self.writer)


def trim(samples: Samples) -> Samples:
    """Drop the columns that are padding in every sample."""
    assert samples.mask is not None
    return resize(samples, max(2, int(samples.mask.flatten(0, 1).any(0).sum())), pad_token_id=0)


def resize(samples: Samples, length: int, pad_token_id: int) -> Samples:
    """Pad samples at the end, or cut them, to `length` columns."""

    def fit(value: Tensor | None, dim: int, wanted: int, fill: Any) -> Tensor | None:
        if value is None:
            return None
        after = [0, 0] * (value.ndim - 1 - dim) + [0, wanted - value.shape[dim]]
        return (
            nn.functional.pad(value, after, value=fill) if wanted > value.shape[dim] else value.narrow(dim, 0, wanted)
        )

    return replace(
        samples,
        tokens=fit(samples.tokens, 2, length, pad_token_id),
        mask=fit(samples.mask, 2, length, False),
        logprobs=fit(samples.logprobs, 2, length - 1, 0.0),
        support=fit(samples.support, 2, length - 1, 255),
    )


def concat_images(parts: Sequence[Samples], pad_token_id: int) -> Samples:
    """Concatenate the samples of several batches."""
    return _join(parts, pad_token_id, dim=0, texts=[text for part in parts for text in part.texts])


def concat_samples(samples: Samples, others: Samples, pad_token_id: int) -> Samples:
    """Concatenate two sets of samples of the same images: K + J per image. Log-probabilities are dropped."""
    bare = [replace(part, logprobs=None, support=None) for part in (samples, others)]
    texts = [[*a, *b] for a, b in zip(samples.texts, others.texts, strict=True)]
    return _join(bare, pad_token_id, dim=1, texts=texts)


def _join(parts: Sequence[Samples], pad_token_id: int, dim: int, texts: list[list[str]]) -> Samples:
    length = max(part.tokens.shape[-1] for part in parts if part.tokens is not None)
    fitted = [resize(part, length, pad_token_id) for part in parts]

    def joined(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in fitted]
        return None if values[0] is None else torch.cat(values, dim)

    return Samples(texts=texts, **{name: joined(name) for name in ("tokens", "mask", "ended", "logprobs", "support")})
