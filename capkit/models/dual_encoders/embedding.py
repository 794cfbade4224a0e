"""What dual encoders and sentence encoders share: texts in batches, each distinct one once."""

from jaxtyping import Float
from torch import Tensor, nn


def unit(vectors: Float[Tensor, "*n D"]) -> Float[Tensor, "*n D"]:
    """Unit norm in float32, whatever the precision of the network."""
    return nn.functional.normalize(vectors.float(), dim=-1)
