"""Process each distinct item of a batch once."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.fault_tolerance.oom import map_in_chunks

Item = TypeVar("Item", str, tuple[str, str])


Result = TypeVar("Result")


def map_unique(items: Sequence[Item], run: Callable[[list[Item]], Sequence[Result]], batch_size: int) -> list[Result]:
    """Apply `run` to each distinct item once, in batches sorted by length, and return a result per item."""
    distinct = sorted(dict.fromkeys(items), key=lambda item: len("".join(item)))
    parts = map_in_chunks(distinct, run, batch_size)
    results = dict(zip(distinct, (result for part in parts for result in part), strict=True))
    return [results[item] for item in items]


def embed_distinct(
    texts: list[str], embed: Callable[[list[str]], Float[Tensor, "n D"]], batch_size: int
) -> Float[Tensor, "B D"]:
    """Embed each distinct text once, in batches sorted by length, so that equal texts get equal embeddings."""
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    if not distinct:
        return embed([""])[:0]
    parts = torch.cat(map_in_chunks(distinct, embed, batch_size))
    row = {text: i for i, text in enumerate(distinct)}
    return parts[torch.tensor([row[text] for text in texts], device=parts.device)]
