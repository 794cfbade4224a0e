"""How the vectors of conditions stand in front of the tokens that a decoder reads, without a position of their own.

B images, R rows, T tokens, C vectors of conditions, S = C + T places, W width of the decoder.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.errors import UsageError
from capkit.types import Context


def with_conditions(context: Context, embeddings: Float[Tensor, "R T W"]) -> Float[Tensor, "R S W"]:
    """Embeddings of captions' tokens with the vectors of their conditions in front, if there are any.

    Rows b N .. b N + N - 1 are captions of image b. Of N captions and K different conditions each of the latter serves
    N / K captions in a row. Raises UsageError where that is not whole.
    """
    if context.conditions is None:
        return embeddings
    given = context.conditions.flatten(0, 1)
    num_rows, num_given = len(embeddings), len(given)
    if num_rows % num_given:
        raise UsageError(
            f"expected as many captions of an image as it has conditions, or a multiple; got {num_rows} captions and "
            f"{num_given} conditions of {len(context.states)} images; with data.conditions of captions, read and "
            "write data.captions_per_image of them"
        )
    vectors = given.repeat_interleave(num_rows // num_given, 0)
    return torch.cat([vectors.to(embeddings.dtype), embeddings], dim=1)


def positions(context: Context, past: int, num_new: int, front: int = 0) -> Int[Tensor, "1 T"]:
    """Positions of `num_new` places behind `past` ones: those that they would have without conditions.

    `front` places (of an image's prefix) stand before the conditions, which share the position of what follows them.
    """
    places = torch.arange(past, past + num_new, device=context.states.device)
    return (places - (places - front).clamp(0, context.num_conditions))[None]
