"""Cosine of a caption's and its references' sentence embeddings (Reimers & Gurevych 2019).

B images, K samples per image.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.models.dual_encoders.sentence_encoder import MINILM, SentenceEncoder
from capkit.scorers.base import BaseScorer
from capkit.scorers.flatten import flat_texts, references_of, says_something, unflatten_scores
from capkit.types import CaptionBatch, Samples


class SentenceSimilarity(BaseScorer):
    """Cosine with the most similar reference, -1 to 1; NaN for a caption without a letter or digit.

    Args:
        encoder: Folder or hub name for `SentenceEncoder`, or "minilm".
    """

    needs_references = True

    def __init__(self, encoder: str = MINILM) -> None:
        self._encoder = SentenceEncoder(encoder)

    def __call__(self, batch: CaptionBatch, samples: Samples) -> Float[Tensor, "B K"]:
        references = references_of(batch, "SentenceSimilarity")
        texts, flat = flat_texts(samples), [reference for own in references for reference in own]
        vectors = self._encoder.encode_text(texts)
        known = self._encoder.encode_text(flat).split([len(own) for own in references])
        num_samples = len(samples.texts[0])
        best = [
            float((known[row // num_samples] @ vector).max()) if says_something(text) else math.nan
            for row, (text, vector) in enumerate(zip(texts, vectors, strict=True))
        ]
        return unflatten_scores(best, samples)

    def to(self, device: torch.device | str) -> Any:
        self._encoder.to(device)
        return self

    def provenance(self) -> dict[str, Any]:
        return {"encoder": self._encoder.name}
