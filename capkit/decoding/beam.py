"""Beam search through transformers' `generate`.

B images, R = B x K rows (beams included), T tokens so far, L tokens in all.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from capkit.decoding.config import Decoding
from capkit.decoding.sampling import constraints
from capkit.types import Context
from capkit.upstream.transformers import TokensAndCache, as_cache


class _GenerationAdapter(TokensAndCache, PreTrainedModel, GenerationMixin):
    """Wraps a captioner and its context as the causal language model that transformers' `generate` expects.

    The context is an attribute rather than a model argument: `generate` would repeat an argument's rows for each
    caption, while the context keeps one row per image.
    """

    config_class = PretrainedConfig
    main_input_name = "input_ids"

    def __init__(self, captioner: Any, context: Context):
        config = PretrainedConfig()
        config.vocab_size = captioner.vocab_size  # beam search of transformers 5.17 divides by it
        super().__init__(config)
        # Bypasses nn.Module's registration: the adapter borrows the captioner and owns no parameter.
        self.__dict__["captioner"] = captioner
        self.context = context

    @property
    def device(self) -> torch.device:
        return self.context.states.device

    def forward(
        self, input_ids: Tensor, cache: Any = None, past_key_values: Any = None, return_dict: bool = True
    ) -> Any:
        """Accepts the cache under both of its names, since `generate` rejects arguments missing from this signature."""
        cache = past_key_values if cache is None else cache
        logits = self.__dict__["captioner"].step(self.context, input_ids, cache)
        return CausalLMOutputWithPast(logits=logits[:, None], **as_cache(cache))


def beam_search(
    captioner: Any,
    context: Context,
    decoding: Decoding,
    num_captions: int,
    prompt: list[int],
    stop_ids: Sequence[int],
    other_ends: Sequence[int] = (),
) -> Int[Tensor, "B K L"]:
    """The best captions of each image, best first: token ids with the prompt in front, padding after the end.

    Of an image whose captions have conditions of their own, the best under each of them.
    """
    tokenizer, num_images, device = captioner.tokenizer, len(context.states), context.states.device
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=decoding.max_length,
        num_beams=decoding.num_beams,
        num_return_sequences=num_captions,
        length_penalty=decoding.length_penalty,
        early_stopping=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=[tokenizer.eos_token_id, *other_ends],
        use_cache=True,
    )
    adapter: Any = _GenerationAdapter(captioner, context)
    sequences = adapter.generate(
        torch.tensor(prompt, device=device).expand(context.num_prompts, -1),
        generation_config=config,
        logits_processor=constraints(decoding, len(prompt), tokenizer.eos_token_id, device, stop_ids, other_ends),
        **as_cache(captioner.start(context, len(prompt) + decoding.max_length)),
    )
    return sequences.unflatten(0, (num_images, -1))
