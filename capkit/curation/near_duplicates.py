"""Groups of near-duplicates among a few embedded texts, as CaptionQA's questions are grouped, and who stands for each.

N texts, D dimensions.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float


def representatives(
    rows: Float[np.ndarray, "N D"], num_neighbors: int = 10, min_similarity: float = 0.9, min_within: float = 0.85
) -> list[int]:
    """The places of the medoids of all groups, in order.

    Two texts are bound if each is among the other's `num_neighbors` nearest and their cosine is at least
    `min_similarity`; groups are what is bound together. A group of three or more with a cosine below `min_within` is
    split in two, by its two texts that are least alike, each other one with the nearer; again, until none is left. The
    medoid has the highest sum of cosines with its group; of equal ones the first.

    Deliberate differences from CaptionQA's program: (1) it splits by two means; (2) it joins groups again, before and
    after splitting, if any cosine between them reaches `min_similarity`, mutual neighbours or not.
    """
    cosines = _cosines(rows)
    groups = _bound(_mutual(cosines, num_neighbors) & (cosines >= min_similarity))
    whole: list[list[int]] = []
    while groups:
        group = groups.pop()
        within = cosines[np.ix_(group, group)]
        if len(group) < 3 or within.min() >= min_within:
            whole.append(group)
            continue
        first, second = np.unravel_index(within.argmin(), within.shape)
        is_first = within[first] >= within[second]
        is_first[[first, second]] = True, False
        groups += [[place for place, own in zip(group, is_first, strict=True) if own == side] for side in (True, False)]
    return sorted(_medoid(cosines, group) for group in whole)


def _cosines(rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N N"]:
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit @ unit.T


def _mutual(cosines: Float[np.ndarray, "N N"], num_neighbors: int) -> Bool[np.ndarray, "N N"]:
    others = cosines.copy()
    np.fill_diagonal(others, -np.inf)
    nearest = np.zeros(cosines.shape, dtype=bool)
    order = np.argsort(-others, axis=1, kind="stable")[:, : min(num_neighbors, len(others) - 1)]
    np.put_along_axis(nearest, order, True, axis=1)
    return nearest & nearest.T


def _bound(edges: Bool[np.ndarray, "N N"]) -> list[list[int]]:
    """Connected components, each in order."""
    found: list[list[int]] = []
    seen: set[int] = set()
    for start in range(len(edges)):
        group: set[int] = set()
        rest = [start]
        while rest:
            if (place := rest.pop()) not in group | seen:
                group.add(place)
                rest += np.flatnonzero(edges[place]).tolist()
        seen |= group
        found += [sorted(group)] if group else []
    return found


def _medoid(cosines: Float[np.ndarray, "N N"], group: Sequence[int]) -> int:
    return group[int(cosines[np.ix_(group, group)].sum(axis=1).argmax())]
