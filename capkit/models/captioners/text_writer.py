"""A language model that answers prompts, without any picture: it writes a text for each prompt of a batch.

B prompts' records ("images" elsewhere), K answers each, R = B x K rows, P prompt tokens, L tokens (T new ones), W width
of the language model, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Cache

from capkit.decoding.cache import PreallocatedCache
from capkit.errors import UsageError
from capkit.models.captioners.base import resolve_tokenizer
from capkit.models.captioners.causal_lm import causal_mask, positions, takes_positions, with_prompts
from capkit.models.captioners.headed import HeadedCaptioner
from capkit.models.captioners.kernels import mask_for
from capkit.models.pretrained import language_model, split_head
from capkit.models.tuning.lora import LoRA
from capkit.text.prompt_encoder import give_chat_template
from capkit.types import CaptionBatch, Context
from capkit.upstream.transformers import as_cache
from capkit.utils.ranges import PositiveInt, check_ranges


@check_ranges
class TextWriter(HeadedCaptioner):
    """Any causal language model of transformers, trained to answer the prompts that come with the data.

    A prompt is one user message in the tokenizer's chat template, so that the same model, exported, answers it as
    `text_lm=hf`. A tokenizer without a template gets the plainest one: the message, then BOS.

    Args:
        lm: Hub name, folder, or config dict with `model_type` (random weights).
        tokenizer: Object, hub name or folder; null: the language model's own.
        pretrained: If false, a name gives the architecture only.
        lora: Rank, alpha, dropout and targets of adapters on the otherwise frozen language model.
        max_length: Most tokens of a prompt and its answer together.
    """

    takes_prompts = True

    def __init__(
        self,
        lm: str | Mapping[str, Any],
        tokenizer: Any = None,
        pretrained: bool = True,
        lora: Mapping[str, Any] | None = None,
        max_length: PositiveInt = 512,
    ):
        super().__init__()
        self.tokenizer = resolve_tokenizer(tokenizer, lm if isinstance(lm, str) else None)
        self.prompt, self.max_length = "", max_length
        self.lm = self._network(lm, pretrained)
        embeddings = self.lm.get_input_embeddings()
        self.vocab_size, self.width = embeddings.num_embeddings, embeddings.embedding_dim
        if lora is not None:
            LoRA.from_mapping(lora).add_to(self.lm)
        self._add_conditions(None, self.width)

    def _network(self, lm: str | Mapping[str, Any], pretrained: bool) -> Any:
        give_chat_template(self.tokenizer)
        network = language_model(lm, pretrained, self.tokenizer)
        _check(network, self.max_length)
        return network

    def encode(self, batch: CaptionBatch) -> Context:
        """The batch's prompts; there is nothing else to attend to.

        Raises UsageError for a batch without prompts.
        """
        if batch.prompts is None:
            raise UsageError(
                "model=text_writer answers prompts: expected one with each caption, got none; take data=answers, or a "
                "manifest whose captions have a 'prompt' (docs/text_writer.md)"
            )
        weight = self.lm.get_input_embeddings().weight
        states = torch.zeros((len(batch), 0, self.width), dtype=weight.dtype, device=weight.device)
        return self._prompted(Context(states, None, list(batch.keys)), batch)

    def null_context(self, num_images: int, device: torch.device | str) -> Context:
        raise UsageError(
            "expected a captioner that looks at pictures, got a text writer, which has no picture to do without; set "
            "decoding=greedy"
        )

    def _run(
        self, context: Context, tokens: Int[Tensor, "R T"], cache: Cache | None, past: int
    ) -> Float[Tensor, "R T W"]:
        """Hidden states at the tokens. While the cache is empty, the prompts are read in front of them."""
        num_rows, num_tokens = tokens.shape
        ids = tokens if past else with_prompts(context, tokens)
        mask = causal_mask(context, num_rows, past, ids.shape[1])
        out = self.lm.base_model(
            inputs_embeds=self.lm.get_input_embeddings()(ids),
            attention_mask=mask_for(self.lm, mask),
            use_cache=cache is not None,
            **as_cache(cache),
            **positions(context, num_rows, past, ids.shape[1]),
        )
        return out.last_hidden_state[:, -num_tokens:]

    def _hidden(self, context: Context, tokens: Int[Tensor, "B K L"]) -> Float[Tensor, "B K L W"]:
        length = context.prompt_places + tokens.shape[-1]
        if length > self.max_length:
            raise UsageError(
                f"prompt and answer must fit into model.max_length={self.max_length} tokens; got {length}; raise it, "
                "or lower data.max_prompt_tokens or data.max_length"
            )
        return self._run(context, tokens.flatten(0, 1), None, 0).unflatten(0, tokens.shape[:2])

    @property
    def _head(self) -> nn.Module:
        return split_head(self.lm)[1]

    @property
    def _decoder(self) -> nn.Module:
        return self.lm.base_model

    def start(self, context: Context, capacity: int) -> Cache:
        return PreallocatedCache(context.prompt_places + capacity)

    def step(self, context: Context, tokens: Int[Tensor, "R T"], cache: Cache) -> Float[Tensor, "R V"]:
        return self._head(self._run(context, tokens, cache, cache.get_seq_length())[:, -1])


def _check(lm: Any, max_length: int) -> None:
    split_head(lm)  # fail now if the language model is unsuitable
    if not takes_positions(lm):
        raise UsageError(
            f"model.lm: expected a language model whose positions can be given, since prompts are padded; "
            f"{lm.config.model_type} counts its own; use one such as GPT-2, Llama or Qwen2"
        )
    places = getattr(lm.config, "max_position_embeddings", None)
    if places is not None and max_length > places:
        raise UsageError(
            f"prompt and answer must fit into the language model's {places} positions; got max_length={max_length}; "
            "lower model.max_length"
        )
