"""Queries that combine an image with words: norm(image) + norm(text) - norm(text) (ALIGN, Jia et al. 2021, 5.4).

Q queries, C candidates, D width.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.metrics.ranking import Ranks, join_ranks, normalize, rank_counts

_BLOCK_ELEMENTS = 2**23


def composed_query(
    images: Float[Tensor, "Q D"],
    plus: Float[Tensor, "Q D"] | None = None,
    minus: Float[Tensor, "Q D"] | None = None,
    weight: float = 1.0,
) -> Float[Tensor, "Q D"]:
    """norm(images) + weight * (norm(plus) - norm(minus)), scaled to unit norm; arguments that are None are omitted."""
    query = normalize(images)
    if plus is not None:
        query = query + weight * normalize(plus)
    if minus is not None:
        query = query - weight * normalize(minus)
    return normalize(query)


def ranks_without_own(
    queries: Float[Tensor, "Q D"],
    candidates: Float[Tensor, "C D"],
    own: Int[Tensor, " Q"],
    target: Int[Tensor, " Q"],
) -> Ranks:
    """Ranks of `target` (a row of candidates) for each query, among all candidates except the query's own image."""
    block = max(1, _BLOCK_ELEMENTS // max(1, len(candidates)))
    columns, places = candidates.double().T, torch.arange(len(candidates), device=candidates.device)
    parts = []
    for start in range(0, len(queries), block):
        rows = slice(start, start + block)
        similarity = queries[rows].double() @ columns
        similarity = similarity.masked_fill(places == own[rows, None], -torch.inf)
        parts.append(rank_counts(similarity, places == target[rows, None]))
    return join_ranks(parts)
