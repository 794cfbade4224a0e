"""Which places of a chat model's row attend to which, and where they stand.

A row: ids in front of the picture, N image tokens, the prompt's ids, the caption's. B images, R rows, Q queries, S
places or keys.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from capkit.models.captioners.causal_lm import causal_mask, positions
from capkit.models.captioners.chat_families import ChatFamily
from capkit.types import Context


@dataclass(frozen=True)
class ChatRows:
    """Rows of one captioner: `before` ids in front of the picture, whose `num_image_tokens` are a square."""

    family: ChatFamily
    before: int
    num_image_tokens: int

    @property
    def front(self) -> int:
        """Places that are the same for every prompt: the ids in front of the picture and the picture."""
        return self.before + self.num_image_tokens

    def at_picture(self, places: Int[Tensor, "*rows S"]) -> Bool[Tensor, "*rows S"]:
        return (places >= self.before) & (places < self.front)

    def mask(self, context: Context, num_rows: int, past: int, num_new: int) -> Bool[Tensor, "R 1 Q S"]:
        """True where a new place may attend, as `causal_mask`, and all of a prefix language model's beginning."""
        if context.mask is not None:
            context = replace(context, mask=nn.functional.pad(context.mask, (self.before, 0), value=True))
        mask = causal_mask(context, num_rows, past, num_new, self.front)
        if past or not self.family.reads_both_ways:
            return mask
        end = self.front + context.prompt_places + 1
        is_first = torch.arange(num_new, device=mask.device) < end
        seen_by_last = mask[:, :, end - 1, None]  # no padding in front of the prompt
        return mask | (is_first[:, None] & is_first & seen_by_last)

    def positions(
        self, context: Context, num_rows: int, past: int, num_new: int
    ) -> Int[Tensor, "_ S"] | Int[Tensor, "3 _ S"]:
        """Positions of new places, of one row or of all: one each, or three (time, row, column) on a grid.

        There (M-RoPE, Wang et al. 2024, arXiv 2409.12191) a picture takes as many positions as it has rows: what
        follows counts on from the largest of them.
        """
        places = torch.arange(past, past + num_new, device=context.states.device)[None]
        places = positions(context, num_rows, past, num_new, self.front).get("position_ids", places)
        if not self.family.on_a_grid:
            return places + self.family.first_position
        side = int(self.num_image_tokens**0.5)
        inside = (places - self.before).clamp(0, self.num_image_tokens - 1)
        grid = torch.stack([torch.zeros_like(inside), inside // side, inside % side]) + self.before
        around = torch.where(places < self.before, places, places - self.num_image_tokens + side)
        return torch.where(self.at_picture(places), grid, around.expand_as(grid))
