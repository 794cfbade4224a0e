"""The protocols of dual encoders."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class DualEncoder(Protocol):
    """Embeds images and texts in one space. Scores are reported with its name, prompt and truncation."""

    name: str
    prompt: str
    max_length: int

    def preprocess(self, images: Sequence[Any]) -> Float[Tensor, "B 3 H W"]:
        """Resize, crop and normalise pictures (uint8 H W 3 arrays or PIL) for `encode_image`."""
        ...

    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Unit-norm embeddings of preprocessed pixels."""
        ...

    def encode_text(self, texts: list[str]) -> Float[Tensor, "B D"]:
        """Unit-norm embeddings of prompt + text, truncated to `max_length` tokens."""
        ...

    def is_cut(self, texts: list[str]) -> list[bool]:
        """Whether `encode_text` truncates each text."""
        ...

    def to(self, device: torch.device | str) -> Any:
        """Move the weights in place."""
        ...


def provenance(encoder: Any) -> dict[str, Any]:
    """What to quote with every number of this encoder. Sentence encoders have no prompt."""
    return {"scorer": encoder.name, "prompt": getattr(encoder, "prompt", ""), "max_length": encoder.max_length}


@runtime_checkable
class CacheableEncoder(DualEncoder, Protocol):
    """A dual encoder whose embeddings can be cached on disk."""

    def fingerprint_fields(self, side: str) -> dict[str, Any]:
        """Everything that embeddings of a side ("image" or "text") depend on, as JSON-serialisable data.

        Contains "side", a fingerprint of the weights (capkit/models/weights.py), and the preprocessing (images) or
        tokenizer, prompt and truncation (texts). Encoders whose fields differ must not share embeddings; training an
        encoder further changes its fields.
        """
        ...
