"""Argument name of the KV cache in the installed transformers: `past_key_values`, renamed to `cache` in 5.24."""

import dataclasses
from typing import Any

from transformers.modeling_outputs import CausalLMOutputWithPast

_NAMES = {"cache", "past_key_values"}
(CACHE_NAME,) = _NAMES & {field.name for field in dataclasses.fields(CausalLMOutputWithPast)}


def as_cache(cache: Any) -> dict[str, Any]:
    """Keyword arguments that pass the KV cache to the installed transformers' models, outputs and `generate`."""
    return {CACHE_NAME: cache}
