"""How a causal language model reads a caption's tokens behind an image's prefix, conditions and a prompt of its own.

The places of a row: F of the prefix, C of conditions, P of the prompt, T tokens. Prompts of different length are padded
on the left. The prompt's last token stands in the place of the first of the tokens, BOS.

B images, K captions per image, R rows, N image tokens, Q queries, S keys.
"""

import inspect
from typing import Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from capkit.errors import UsageError
from capkit.models.conditions.prefix import positions as positions_behind_conditions
from capkit.types import Context


def with_prompts(context: Context, tokens: Int[Tensor, "R T"]) -> Int[Tensor, "R S"]:
    """Each row's prompt and its tokens behind it, S = P + T - 1 in all; the tokens where there are no prompts."""
    if context.prompts is None:
        return tokens
    return torch.cat([of_rows(context.prompts, len(tokens)), tokens[:, 1:]], dim=1)


def of_rows(of_captions: Shaped[Tensor, "B K *rest"], num_rows: int) -> Shaped[Tensor, "R ..."]:
    """Rows b N .. b N + N - 1 are captions of image b: of N captions, each of K prompts serves N / K in a row."""
    flat = of_captions.flatten(0, 1)
    if num_rows % len(flat):
        raise UsageError(
            f"expected as many captions of an image as it has prompts, or a multiple; got {num_rows} captions and "
            f"{len(flat)} prompts of {len(of_captions)} images; read and write data.captions_per_image of them"
        )
    return flat.repeat_interleave(num_rows // len(flat), 0)


def _padding(context: Context, num_rows: int) -> Int[Tensor, "R 1"] | None:
    """How many places in front of each row's prompt are padding."""
    if context.prompts_mask is None:
        return None
    return (~of_rows(context.prompts_mask, num_rows)).sum(-1, keepdim=True)


def causal_mask(context: Context, num_rows: int, past: int, num_new: int, front: int = 0) -> Bool[Tensor, "R 1 Q S"]:
    """True where a new position may attend: at itself and before it, but not to masked prefix positions and padding.

    Whole, so that transformers adds nothing to it: made from a mask of the positions, it would wait for the device.
    `front`: F.
    """
    num_keys = past + num_new
    places = torch.arange(num_keys, device=context.states.device)
    causal = places <= places[past:, None]
    padding = _padding(context, num_rows)
    if context.mask is None and padding is None:
        return causal.expand(num_rows, 1, -1, -1)
    allowed = torch.ones((num_rows, num_keys), dtype=torch.bool, device=places.device)
    if context.mask is not None:
        seen = context.mask.repeat_interleave(num_rows // len(context.mask), 0)
        allowed = torch.nn.functional.pad(seen, (0, num_keys - seen.shape[1]), value=True)
    if padding is None:
        return (allowed[:, None] & causal)[:, None]
    start = front + context.num_conditions
    allowed = allowed & ((places < start) | (places >= start + padding))
    # Padding attends to itself, since a softmax over nothing is NaN, and NaN times a weight of 0 is NaN.
    itself = places == places[past:, None]
    return ((allowed[:, None] & causal) | itself)[:, None]


def positions(context: Context, num_rows: int, past: int, num_new: int, front: int = 0) -> dict[str, Tensor]:
    """`position_ids` for transformers; nothing where it counts by itself, without conditions and prompts.

    Neither conditions nor padding have positions of their own: what stands behind them counts on from the prefix.
    """
    padding = _padding(context, num_rows)
    if context.conditions is None and padding is None:
        return {}
    found = positions_behind_conditions(context, past, num_new, front)
    if padding is not None:
        places = torch.arange(past, past + num_new, device=found.device)
        behind = (places - front - context.num_conditions).clamp(min=0)
        found = found - torch.minimum(behind[None], padding)
    return {"position_ids": found}


def takes_positions(lm: Any) -> bool:
    """Whether the language model can be told positions; BLOOM and its like count by themselves."""
    return "position_ids" in inspect.signature(lm.base_model.forward).parameters
