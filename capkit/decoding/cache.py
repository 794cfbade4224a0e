"""What transformers calls a decoder's cache of keys and values: `past_key_values`, and from 5.24 on `cache`."""

import dataclasses
from typing import Any

from transformers.modeling_outputs import CausalLMOutputWithPast

_NAMES = {"cache", "past_key_values"}
(CACHE_NAME,) = _NAMES & {field.name for field in dataclasses.fields(CausalLMOutputWithPast)}


def as_cache(cache: Any) -> dict[str, Any]:
    """The cache as keyword argument of the installed transformers' models, their outputs and generation."""
    return {CACHE_NAME: cache}
