"""How the language model of a chat model reads rows: ids in front, the picture, the prompt, the caption.

B images, K captions per image, R = B x K rows, T tokens, N image tokens, S places of a row, E width of a picture's
features, W width of the language model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache

from capkit.models.captioners.causal_lm import with_prompts
from capkit.models.captioners.chat_rows import ChatRows
from capkit.models.captioners.chat_sharing import SharedRows, captions_a_row
from capkit.models.captioners.kernels import mask_for
from capkit.types import Context
from capkit.upstream.transformers import as_cache


@dataclass(frozen=True)
class ChatReader:
    """The language model with the ids that stand in front of a picture, and where places of a row are."""

    language: Any
    front: Sequence[int]
    rows: ChatRows

    @property
    def width(self) -> int:
        return int(self.embed.embedding_dim)

    @property
    def embed(self) -> Any:
        return self.language.get_input_embeddings()

    def read(
        self, context: Context, tokens: Int[Tensor, "R T"], cache: Cache | None, past: int
    ) -> Float[Tensor, "R T W"]:
        """Hidden states at the tokens. While the cache is empty, picture and prompt are read in front of them."""
        embeds = self.embed(tokens if past else with_prompts(context, tokens))
        extra: dict[str, Any] = {}
        if not past:
            embeds, extra = self._with_picture(context, embeds)
        place = (context, len(tokens), past, embeds.shape[1])
        hidden = self._run(embeds, self.rows.mask(*place), self.rows.positions(*place), cache, extra)
        return hidden[:, -tokens.shape[1] :]

    def read_together(self, context: Context, tokens: Int[Tensor, "B K T"]) -> Float[Tensor, "B K T W"]:
        """The same without a cache, captions of a picture in one row where they answer one prompt: `SharedRows`."""
        num_images, num_captions, length = tokens.shape
        prefix = self.rows.front + context.prompt_places + 1  # the prompt's last token stands for the first of T
        number = captions_a_row(num_captions, prefix, length - 1, self.width)
        if number == 1 or context.num_prompts > num_images:
            return self.read(context, tokens.flatten(0, 1), None, 0).unflatten(0, tokens.shape[:2])
        shared = SharedRows(prefix, length - 1, number)
        joined = shared.joined(tokens)
        embeds, extra = self._with_picture(context, self.embed(with_prompts(context, joined)))
        place, repeats = (context, num_images, 0, prefix + length - 1), len(joined) // num_images
        mask, positions = shared.mask(self.rows.mask(*place)), shared.positions(self.rows.positions(*place))
        if positions.shape[-2] > 1:  # prompts of different length
            positions = positions.repeat_interleave(repeats, -2)
        hidden = self._run(embeds, mask.repeat_interleave(repeats, 0), positions, None, extra)
        return shared.parted(hidden, num_images, num_captions)

    def _run(
        self,
        embeds: Float[Tensor, "R S W"],
        mask: Bool[Tensor, "R 1 S _"],
        positions: Int[Tensor, "_ S"] | Int[Tensor, "3 _ S"],
        cache: Cache | None,
        extra: dict[str, Any],
    ) -> Float[Tensor, "R S W"]:
        out = self.language(
            inputs_embeds=embeds,
            attention_mask=mask_for(self.language, mask),
            position_ids=positions.expand(*positions.shape[:-2], len(embeds), -1),
            use_cache=cache is not None,
            **as_cache(cache),
            **extra,
        )
        return out.last_hidden_state

    def _with_picture(
        self, context: Context, embeddings: Float[Tensor, "R T W"]
    ) -> tuple[Float[Tensor, "R S W"], dict[str, Any]]:
        """Embeddings with the ids in front and the picture before them, and what deeper layers add at the picture."""
        num_rows, front = len(embeddings), torch.tensor(self.front, device=embeddings.device, dtype=torch.int64)
        first = self.embed(front).expand(num_rows, -1, -1)
        states = context.states.repeat_interleave(num_rows // len(context.states), 0).to(embeddings.dtype)
        picture, *deeper = states.split(self.width, -1)
        whole = torch.cat([first, picture, embeddings], 1)
        if not deeper:
            return whole, {}
        at_picture = self.rows.at_picture(torch.arange(whole.shape[1], device=whole.device))
        layers = [value.flatten(0, 1) for value in deeper]
        return whole, {"visual_pos_masks": at_picture.expand(num_rows, -1), "deepstack_visual_embeds": layers}
