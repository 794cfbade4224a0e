"""What a user gives as a config of transformers: a misspelt key, and what transformers refuses, are told.

transformers takes any key and keeps one that it does not know as an attribute that nobody reads. It meets a wrong value
where its code first uses it: in the config, in a layer, or in the first forward pass.
"""

import contextlib
import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig, PreTrainedConfig

from capkit.errors import UsageError

_OF_GENERATION = frozenset(GenerationConfig().to_dict())
_NEAR = 0.85  # similarity of two keys from which one is taken for the other, misspelt
# What transformers' configs and layers have been seen to raise for values of a wrong type or size.
_REFUSALS = (
    StrictDataclassError,
    TypeError,
    ValueError,
    RuntimeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    ImportError,
)


@contextlib.contextmanager
def telling_refusals(role: str, config: Any, fix: str = "") -> Iterator[None]:
    """Raise a UsageError where transformers cannot take a config: its settings, or an object made of them.

    `fix` says what to change; by default the value that the error is about.
    """
    try:
        yield
    except (UsageError, torch.OutOfMemoryError):
        raise
    except _REFUSALS as error:
        kind = config.get("model_type") if isinstance(config, Mapping) else getattr(config, "model_type", None)
        raise UsageError(
            f"the {role}: expected settings that {kind} can be built of, got "
            f"{_told(error)}; {fix or 'correct this value of its config'}"
        ) from error


def network_of(build: Callable[[Any], Any], config: Any, role: str) -> Any:
    """`build(config)`, with random weights. Raises UsageError where transformers cannot build it."""
    with telling_refusals(role, config):
        return build(config)


def inner_settings(config: Mapping[str, Any], key: str, role: str) -> Mapping[str, Any]:
    """The settings of a config within a config; none where it has none. Raises UsageError for anything else."""
    inner = config.get(key)
    if inner is not None and not isinstance(inner, Mapping):
        raise UsageError(f"the {role}: expected settings by name for {key}, got {inner!r}; give {key}: {{KEY: VALUE}}")
    return inner or {}


def check_heads(config: Any, role: str) -> None:
    """Raise a UsageError for key-value heads that the heads do not divide by, which fail in the first forward pass."""
    heads, shared = (getattr(config, f"num_{kind}_heads", None) for kind in ("attention", "key_value"))
    if isinstance(heads, int) and isinstance(shared, int) and (shared < 1 or heads % shared):
        raise UsageError(
            f"the {role}: expected num_key_value_heads that divides num_attention_heads={heads}, got {shared}; "
            f"give {heads}, or another divisor"
        )


def check_keys(config: PreTrainedConfig, given: Mapping[str, Any], role: str) -> None:
    """Raise a UsageError for a misspelt key of the built config's type, also of the configs within it.

    Keys that are near to none of the type's are left alone: config.json files of other versions have some. So are
    settings of generation, and ids of tokens, which are named alike (`vision_token_id` of Qwen2.5-VL's own file).
    """
    known = {*(field.name for field in dataclasses.fields(config)), *config.attribute_map}  # type: ignore[arg-type]
    for key, value in given.items():
        inner = getattr(config, key, None)
        if isinstance(inner, PreTrainedConfig) and isinstance(value, Mapping):
            check_keys(inner, value, role)
            check_heads(inner, role)
        is_kept = key in config.__dict__ and key not in known  # of others transformers has made something
        is_elsewhere = key in _OF_GENERATION or key.endswith("_token_id")
        near = difflib.get_close_matches(key, known, n=1, cutoff=_NEAR)
        if is_kept and near and not is_elsewhere:
            raise UsageError(
                f"the {role}: expected keys of a config of type {config.model_type}, got {key!r}, which would have no "
                f"effect; did you mean {near[0]!r}?"
            )


def _told(error: BaseException) -> str:
    """The error's kind and what it says, in one line. An error about a field says what is wrong in its second line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, StrictDataclassError) and len(lines) > 1:
        return lines[1].partition(" Errors: ")[0].removesuffix(".")
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason'}".removesuffix(".")
