"""transformers: the KV cache's name, inputs of `generate`, what `decode` does, and GPT-2's linear layer."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerFast, masking_utils
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.pytorch_utils import Conv1D as Conv1D

_NAMES = {"cache", "past_key_values"}
# Argument name of the KV cache in the installed transformers: `past_key_values`, renamed to `cache` in 5.24.
(CACHE_NAME,) = _NAMES & {field.name for field in dataclasses.fields(CausalLMOutputWithPast)}


def as_cache(cache: Any) -> dict[str, Any]:
    """Keyword arguments that pass the KV cache to the installed transformers' models, outputs and `generate`."""
    return {CACHE_NAME: cache}


@contextmanager
def no_masks_of_ones() -> Iterator[None]:
    """Let models leave out a mask that nobody gave, also while a CUDA graph is captured.

    Before 5.24 transformers then makes one that is all ones, and torch attends several times slower with it.
    """
    original = masking_utils.is_tracing

    def is_tracing(tensor: Any = None) -> bool:
        return tensor is not None and original(tensor)

    masking_utils.is_tracing = is_tracing  # type: ignore[assignment]
    try:
        yield
    finally:
        masking_utils.is_tracing = original


def kernel_of(model: Any) -> str:
    """The name of a model's attention, such as sdpa."""
    return str(model.config._attn_implementation)


def for_kernel(model: Any, mask: Tensor) -> Tensor:
    """A (R 1 Q S) mask, True where is attended, as the model's kernel reads it: eager attention adds it to scores."""
    if kernel_of(model) != "eager":
        return mask
    added = torch.zeros(mask.shape, dtype=model.dtype, device=mask.device)
    return added.masked_fill(~mask, torch.finfo(model.dtype).min)


@contextmanager
def keeping_cross_attention(model: Any) -> Iterator[list[Tensor | None]]:
    """A list to which the (R H T N) weights of each layer are added while the decoder runs; None of a layer without.

    Only eager attention gives weights; the model's own kernel is back afterwards.
    """
    found: list[Tensor | None] = []
    kernel = kernel_of(model)

    def keep(module: Any, arguments: Any, out: Any) -> None:
        found.extend(out.cross_attentions or ())

    model.set_attn_implementation("eager")
    model.config.output_attentions = True
    hook = model.base_model.register_forward_hook(keep)
    try:
        yield found
    finally:
        hook.remove()
        model.config.output_attentions = False
        model.set_attn_implementation(kernel)


def decodes_by_backend(tokenizer: Any) -> bool:
    """Whether `decode` gives what the backend's own decoding gives: no method replaced, no spaces cleaned up after."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.clean_up_tokenization_spaces:
        return False
    kinds = type(tokenizer).__mro__
    replaced = {name for kind in kinds[: kinds.index(PreTrainedTokenizerFast)] for name in vars(kind)}
    return not replaced & {"decode", "_decode"}


class TokensAndCache:
    """Mixin of models given to `generate`, to stand before `PreTrainedModel`: inputs are new tokens and the cache."""

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, next_sequence_length: int | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        new = input_ids if next_sequence_length is None else input_ids[:, -next_sequence_length:]
        return {"input_ids": new, **as_cache(kwargs[CACHE_NAME])}


def cache_rows(cache: DynamicCache, rows: Tensor) -> DynamicCache:
    """A copy of some rows of a cache, in this order; rows may repeat."""
    copy = DynamicCache()
    layers: Any = cache.layers  # their keys and values are there as soon as something was read
    for number, layer in enumerate(layers):
        copy.update(layer.keys[rows], layer.values[rows], number)
    return copy


def name_special_tokens(tokenizer: Any, names: dict[str, str]) -> None:
    """Let the tokenizer have special tokens as attributes, as `extra_special_tokens` of a saved one does."""
    tokenizer._set_model_specific_special_tokens(special_tokens=names)
