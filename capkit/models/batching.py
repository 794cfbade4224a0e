"""Process each distinct item of a batch once, in batches of few shapes.

M texts, L tokens, D width.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from capkit.fault_tolerance.oom import map_in_chunks
from capkit.utils.tensors import send

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
    return parts[send(torch.tensor([row[text] for text in texts]), parts.device)]


def fixed_shape(
    tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"], max_length: int
) -> tuple[Int[Tensor, "N K"], Bool[Tensor, "N K"]]:
    """Pad texts to one of few shapes: on a GPU, libraries choose and build kernels anew for each shape that they meet.

    Rows are a power of two up to 64, then a multiple of 64; the last text is repeated. Columns are a multiple of 8, or
    `max_length` where that is less; they are padding. What a network gives for the first M rows stays the same.
    """
    num_texts, length = tokens.shape
    rows = max(8, 1 << (num_texts - 1).bit_length()) if num_texts <= 64 else -(-num_texts // 64) * 64
    columns = max(length, min(-(-length // 8) * 8, max_length))
    places = torch.arange(rows).clamp(max=num_texts - 1).to(tokens.device)
    pad = (0, columns - length)
    return torch.nn.functional.pad(tokens[places], pad), torch.nn.functional.pad(mask[places], pad)
