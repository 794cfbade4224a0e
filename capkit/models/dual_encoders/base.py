"""What a dual encoder must offer."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class DualEncoder(Protocol):
    """Embeds images and texts in one space. Prompt and truncation belong to it: a number is quoted with all three."""

    name: str
    prompt: str
    max_length: int

    def preprocess(self, images: Sequence[Any]) -> Float[Tensor, "B 3 H W"]:
        """Pictures (uint8 H W 3 arrays or PIL) resized, cropped and normalised for `encode_image`."""
        ...

    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        """Unit-norm embeddings of preprocessed pixels."""
        ...

    def encode_text(self, texts: list[str]) -> Float[Tensor, "B D"]:
        """Unit-norm embeddings of prompt + text, cut to `max_length` tokens."""
        ...

    def is_cut(self, texts: list[str]) -> list[bool]:
        """Whether `encode_text` sees less than the whole of each text."""
        ...

    def to(self, device: torch.device | str) -> Any:
        """Moves the weights, in place."""
        ...


@runtime_checkable
class CacheableEncoder(DualEncoder, Protocol):
    """A dual encoder whose embeddings may be kept on disk and used again."""

    def fingerprint_fields(self, side: str) -> dict[str, Any]:
        """What embeddings of a side ("image" or "text") depend on, as plain data that JSON can hold.

        Weights as a fingerprint (capkit/models/weights.py); for images the preprocessing; for texts tokenizer, prompt
        and truncation. It has an entry "side". Two encoders that differ here must not share embeddings, and an encoder
        that is trained further says something else.
        """
        ...
