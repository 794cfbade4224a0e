"""What a picture adds to each token of a caption.

B images, K captions per image, L tokens.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from capkit.decoding.guided import LEAST
from capkit.types import Context


@runtime_checkable
class Likely(Protocol):
    """What says how likely given tokens are; every captioner does."""

    def logprobs(
        self, context: Context, tokens: Int[Tensor, "B K L"], mask: Bool[Tensor, "B K L"]
    ) -> Float[Tensor, "B K L-1"]: ...


def picture_gains(
    captioner: Likely, context: Context, tokens: Int[Tensor, "B K L"], mask: Bool[Tensor, "B K L"]
) -> Float[Tensor, "B K L-1"]:
    """log p(token | picture, tokens before) - log p(token | tokens before) of `tokens[..., 1:]`, in nats, 0 at padding.

    Both are normalised over the vocabulary (ScaleCap, Xing et al. 2025, section 3.3, has probabilities; its released
    program subtracts raw logits, whose offset means nothing). `tokens` are the ids that were generated. Without the
    picture means zeros where its states are, which `objective.image_dropout` trains on; a log-probability below that of
    the smallest float32 counts as that.
    """
    without = captioner.logprobs(context.without_image(), tokens, mask)
    return captioner.logprobs(context, tokens, mask) - without.clamp(min=LEAST)
