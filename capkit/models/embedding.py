"""What dual encoders and sentence encoders share: texts in batches, each distinct one once."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capkit.halving import in_parts


def unit(vectors: Float[Tensor, "*n D"]) -> Float[Tensor, "*n D"]:
    """Unit norm in float32, whatever the precision of the network."""
    return nn.functional.normalize(vectors.float(), dim=-1)


def embed_distinct(
    texts: list[str], embed: Callable[[list[str]], Float[Tensor, "n D"]], batch_size: int
) -> Float[Tensor, "B D"]:
    """Each distinct text goes through `embed` once, short ones with short ones: equal texts get equal embeddings."""
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    if not distinct:
        return embed([""])[:0]
    parts = torch.cat(in_parts(distinct, embed, batch_size))
    row = {text: i for i, text in enumerate(distinct)}
    return parts[torch.tensor([row[text] for text in texts], device=parts.device)]
