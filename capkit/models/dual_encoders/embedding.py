"""Normalisation of embeddings."""

from jaxtyping import Float
from torch import Tensor, nn


def unit(vectors: Float[Tensor, "*n D"]) -> Float[Tensor, "*n D"]:
    """Normalise to unit length in float32, whatever the network's precision."""
    return nn.functional.normalize(vectors.float(), dim=-1)
