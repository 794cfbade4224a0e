"""BLIP-2 (Li et al. 2023, arXiv 2301.12597): a Q-Former asks an image, and a language model reads what it finds.

B images, N image tokens of width D, R rows, T new tokens, F queries, W width of the language model.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache

from capkit.errors import UsageError
from capkit.models.captioners.causal_lm import causal_mask, takes_positions
from capkit.models.captioners.kernels import mask_for
from capkit.types import Context
from capkit.upstream.transformers import as_cache

IMAGE = "<image>"


def check_language_model(config: Any) -> None:
    """Raises UsageError for a BLIP-2 whose language model has an encoder of its own (Flan-T5)."""
    if not config.use_decoder_only_language_model:
        raise UsageError(
            f"HFCaptioner expected a BLIP-2 with a language model of a decoder alone, such as "
            f"Salesforce/blip2-opt-2.7b; got one with {config.text_config.model_type}; use that one"
        )


def image_token_id(tokenizer: Any) -> int:
    """The id of the token that stands for the image where transformers reads ids; it is added where there is none."""
    tokenizer.add_tokens([IMAGE], special_tokens=True)
    found: int = tokenizer.convert_tokens_to_ids(IMAGE)
    return found


def ask(
    model: Any, tokens: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None
) -> tuple[Float[Tensor, "B F W"], None]:
    """What the Q-Former finds in the image, as inputs of the language model: F queries, whatever N is."""
    seen = None if mask is None else mask.long()
    queries = model.query_tokens.expand(len(tokens), -1, -1)
    found = model.qformer(query_embeds=queries, encoder_hidden_states=tokens, encoder_attention_mask=seen)
    return model.language_projection(found.last_hidden_state.to(tokens.dtype)), None


def hidden_behind_queries(
    lm: Any,
    states: Float[Tensor, "R F W"],
    mask: Tensor | None,
    tokens: Int[Tensor, "R T"],
    cache: Cache | None,
    context: Context,
) -> Float[Tensor, "R T W"]:
    """The language model's hidden states at the tokens. While its cache is empty, the queries stand before them."""
    past = cache.get_seq_length() if cache is not None else 0
    embeds = lm.get_input_embeddings()(tokens)
    if past == 0:
        embeds = torch.cat([states.to(embeds.dtype), embeds], dim=1)
    num_new = embeds.shape[1]
    places = torch.arange(past, past + num_new, device=tokens.device)[None]
    out = lm.base_model(
        inputs_embeds=embeds,
        attention_mask=mask_for(lm, causal_mask(context, len(tokens), past, num_new, states.shape[1])),
        use_cache=cache is not None,
        **({"position_ids": places} if takes_positions(lm) else {}),
        **as_cache(cache),
    )
    return out.last_hidden_state[:, -tokens.shape[1] :]
