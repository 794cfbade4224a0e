"""A sequence-to-sequence model that answers prompts, without any picture: FLAN-T5, as FuseCap's fuser is.

B prompts' records ("images" elsewhere), Q prompts each, K answers, R = B x K rows, P prompt tokens, T answer tokens, W
width, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, Cache, DynamicCache, EncoderDecoderCache

from capkit.decoding.cache import PreallocatedCache
from capkit.errors import UsageError
from capkit.models.captioners.causal_lm import of_rows
from capkit.models.captioners.text_writer import TextWriter
from capkit.models.pretrained import language_model, load_pretrained
from capkit.text.prompt_encoder import PromptEncoder
from capkit.types import CaptionBatch, Context
from capkit.upstream.transformers import as_cache

_KINDS = ("t5", "mt5")  # relative positions: padding in front of a prompt moves nothing


class Seq2SeqWriter(TextWriter):
    """Any T5 of transformers (T5, FLAN-T5, mT5), trained to answer the prompts that come with the data.

    Its encoder reads a prompt as it is, with the special tokens that the tokenizer adds, and its decoder attends to it:
    so the same model, exported, answers it as `text_lm=hf`. The decoder's start token stands in BOS's place.
    """

    def prompt_encoder(self, most: int, cut: bool) -> PromptEncoder:
        """What turns a prompt into the ids that the encoder reads."""
        return PromptEncoder(self.tokenizer, most, cut, as_text=True)

    def _network(self, lm: str | Mapping[str, Any], pretrained: bool) -> Any:
        if isinstance(lm, str):
            kind = load_pretrained(AutoConfig, lm, "language model").model_type
        else:
            kind = lm.get("model_type")
            lm = {"decoder_start_token_id": self.tokenizer.bos_token_id, **lm}
        if kind not in _KINDS:
            raise UsageError(
                f"model.lm: expected a sequence-to-sequence model of type {' or '.join(_KINDS)} (T5, FLAN-T5, mT5), "
                f"got {kind}; take such a one, or model=text_writer with a causal language model"
            )
        network = language_model(lm, pretrained, self.tokenizer, AutoModelForSeq2SeqLM)
        # T5 1.1, FLAN-T5 and mT5 have a head of their own, which transformers 5.24 ties unless it loads one.
        if not _scales(network.config) and network.lm_head.weight is network.shared.weight:
            network.lm_head.weight = nn.Parameter(network.shared.weight.detach().clone())
        return network

    def encode(self, batch: CaptionBatch) -> Context:
        """The encoder's states of the batch's prompts; raises UsageError for a batch without prompts."""
        context = super().encode(batch)
        ids, mask = context.prompts, context.prompts_mask
        assert ids is not None and mask is not None
        mask = mask | ~mask.any(-1, keepdim=True)  # a missing prompt's padding: a softmax over nothing is NaN
        out = self.lm.encoder(input_ids=ids.flatten(0, 1), attention_mask=mask.flatten(0, 1).long())
        states = out.last_hidden_state.unflatten(0, ids.shape[:2]).flatten(1, 2)
        return replace(context, states=states, mask=mask.flatten(1, 2), of_text=True)

    def _run(
        self, context: Context, tokens: Int[Tensor, "R T"], cache: Cache | None, past: int
    ) -> Float[Tensor, "R T W"]:
        assert context.prompts is not None and context.mask is not None
        shape, num_rows = context.prompts.shape[1:], len(tokens)
        start = self.lm.config.decoder_start_token_id
        ids = tokens if past else torch.cat([torch.full_like(tokens[:, :1], start), tokens[:, 1:]], 1)
        out = self.lm.decoder(
            input_ids=ids,
            attention_mask=tokens.new_ones((num_rows, past + tokens.shape[1])),  # padding is at the end
            encoder_hidden_states=of_rows(context.states.unflatten(1, shape), num_rows),
            encoder_attention_mask=of_rows(context.mask.unflatten(1, shape), num_rows).long(),
            use_cache=cache is not None,
            **as_cache(cache),
        )
        hidden = out.last_hidden_state
        return hidden * self.width**-0.5 if _scales(self.lm.config) else hidden

    @property
    def _head(self) -> nn.Module:
        return self.lm.lm_head

    @property
    def _decoder(self) -> nn.Module:
        return self.lm.decoder

    def start(self, context: Context, capacity: int) -> Cache:
        return EncoderDecoderCache(PreallocatedCache(capacity), DynamicCache())


def _scales(config: Any) -> bool:
    """Whether the head reads its input divided by the root of the width: in T5 1.0, whose head is its embedding.

    transformers 5.24 calls every T5 and mT5 tied, whatever its file says; whether a T5 scales has a field of its own.
    """
    return config.model_type == "t5" and bool(getattr(config, "scale_decoder_outputs", config.tie_word_embeddings))
