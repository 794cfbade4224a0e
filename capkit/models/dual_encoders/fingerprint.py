"""Digests of everything that an encoder's embeddings depend on (for capkit/utils/embedding_cache.py)."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from capkit.models.weights import weights_fingerprint

# How transformers' dual encoders name the parts of each side.
_PARTS = {"image": ("vision_model", "visual_projection"), "text": ("text_model", "text_projection")}
# Config fields about the origin of a model, not the model: they do not change its embeddings.
_NOT_THE_MODEL = ("transformers_version", "torch_dtype", "dtype", "processor_class")


def digest_of(value: Any) -> str:
    """Digest of plain data as 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def side_weights(network: nn.Module, side: str) -> str:
    """Fingerprint of the weights of one side ("image" or "text") of a dual encoder of transformers.

    Per side, so that tuning one leaves the other's cached embeddings valid. If the network has no parts with the usual
    names, all of its weights are hashed.
    """
    tower, projection = (getattr(network, name, None) for name in _PARTS[side])
    if tower is None:
        return weights_fingerprint(network)
    return weights_fingerprint(nn.ModuleList([part for part in (tower, projection) if isinstance(part, nn.Module)]))


def config_digest(config: Any) -> str:
    """Digest of a transformers config: number of heads, activation and the like, which weights do not show."""
    return digest_of(_without_names(config.to_dict()))


def tokenizer_digest(tokenizer: Any) -> str:
    """Digest of a tokenizer's vocabulary and rules, without padding and truncation, which calls change."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return digest_of([type(tokenizer).__name__, tokenizer.get_vocab()])
    return digest_of({**json.loads(backend.to_str()), "padding": None, "truncation": None})


def processor_settings(processor: Any) -> dict[str, Any]:
    """Settings of a transformers image processor, as it reports them."""
    return json.loads(json.dumps(_without_names(processor.to_dict()), sort_keys=True, default=str))


def _without_names(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {
            key: _without_names(value)
            for key, value in node.items()
            if not str(key).startswith("_") and key not in _NOT_THE_MODEL
        }
    return [_without_names(item) for item in node] if isinstance(node, list | tuple) else node
