"""Groups images into bags of look-alikes, from their nearest neighbours.

N images, D width, K neighbours, C candidates.
"""

import numpy as np
from jaxtyping import Float, Int

from capkit.data.curricula.bag_files import NEIGHBORHOODS
from capkit.errors import UsageError, did_you_mean
from capkit.utils.rng import generator

# The first rank, as a share of the K neighbours, that mates of a bag's first image are taken from.
_FIRST_RANK = {"hard": 0.0, "medium": 1 / 3, "easy": 2 / 3}


def group(
    vectors: Float[np.ndarray, "N D"],
    neighbors: Int[np.ndarray, "N K"],
    size: int,
    neighborhood: str,
    duplicate_threshold: float | int,
    seed: int = 0,
) -> Int[np.ndarray, "bags size"]:
    """Bags of `size` images, each image in one bag or in none, no two of a bag more alike than the threshold.

    Greedy: an image that is still free opens a bag, those with the nearest candidates first. Its mates are the first
    of its candidates, by rank, that are free and no duplicates of the bag. Where there are too few, the image opens no
    bag; another one may still take it. Candidates of an image are its neighbours of all ranks (hard), without the
    nearest third (medium) or without the nearest two thirds (easy).

    random: images in an order drawn from `seed`, each bag the next ones that are free.

    The result depends on the arguments alone. `neighbors` are places in `vectors`, nearest first, -1 where there are
    fewer. Raises UsageError for a size below 2, for one that the neighbours can never fill, and where not one bag comes
    about.
    """
    if neighborhood not in NEIGHBORHOODS:
        raise UsageError(f"there is no neighbourhood {neighborhood!r}; {did_you_mean(neighborhood, NEIGHBORHOODS)}")
    if size < 2:
        raise UsageError(f"a bag has 2 or more images; got size {size}")
    # Equal vectors have a product of 1 up to rounding: a threshold of 1 means that nothing is a duplicate.
    threshold = float(duplicate_threshold) if duplicate_threshold < 1 else np.inf
    if neighborhood == "random":
        bags = _random(vectors, size, threshold, seed)
    else:
        bags = _greedy(vectors, _candidates(neighbors, size, neighborhood), size, threshold)
    if not bags:
        raise UsageError(
            f"not one {neighborhood} bag of {size} came about among {len(vectors)} images: too few images, or too many "
            "near-duplicates; mine with a higher duplicate_threshold, or ask for a smaller size"
        )
    return np.array(bags, np.int64)


def _candidates(neighbors: Int[np.ndarray, "N K"], size: int, neighborhood: str) -> Int[np.ndarray, "N C"]:
    candidates = neighbors[:, int(_FIRST_RANK[neighborhood] * neighbors.shape[1]) :]
    if candidates.shape[1] < size - 1:
        raise UsageError(
            f"{neighborhood} bags of {size} need {size - 1} mates of an image, and {candidates.shape[1]} of its "
            f"{neighbors.shape[1]} neighbours are {neighborhood}; mine more: num_neighbors=..."
        )
    return candidates


def _greedy(
    vectors: Float[np.ndarray, "N D"], candidates: Int[np.ndarray, "N C"], size: int, threshold: float
) -> list[list[int]]:
    is_free = np.ones(len(vectors), bool)
    bags = []
    for first in _nearest_first(vectors, candidates[:, size - 2]).tolist():
        mates = candidates[first]
        mates = mates[(mates >= 0) & is_free[mates]]
        if is_free[first] and len(mates) >= size - 1:
            bag = _filled(vectors, [first], mates, size, threshold)
            if len(bag) == size:
                is_free[bag] = False
                bags.append(bag)
    return bags


def _nearest_first(vectors: Float[np.ndarray, "N D"], mates: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """All images, those that are most like their last needed candidate first, equal ones by place."""
    similarity = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), 4096):
        rows = slice(start, start + 4096)
        similarity[rows] = np.einsum("nd,nd->n", vectors[rows], vectors[mates[rows]])
    similarity[mates < 0] = -np.inf
    return np.argsort(-similarity, kind="stable")


def _filled(
    vectors: Float[np.ndarray, "N D"], bag: list[int], mates: Int[np.ndarray, " C"], size: int, threshold: float
) -> list[int]:
    """The bag with mates in their order, without duplicates of what is in it, until it is full or none is left."""
    for mate in mates.tolist():
        if len(bag) == size:
            break
        if (vectors[bag] @ vectors[mate] <= threshold).all():
            bag.append(mate)
    return bag


def _random(vectors: Float[np.ndarray, "N D"], size: int, threshold: float, seed: int) -> list[list[int]]:
    """Those passed over, as duplicates of an image in their bag, go through again, as long as that fills bags."""
    waiting = generator(seed, "random bags", size).permutation(len(vectors)).tolist()
    bags: list[list[int]] = []
    while True:
        passed_over: list[int] = []
        bag: list[int] = []
        before = len(bags)
        for image in waiting:
            if bag and (vectors[bag] @ vectors[image] > threshold).any():
                passed_over.append(image)
                continue
            bag.append(image)
            if len(bag) == size:
                bags.append(bag)
                bag = []
        if len(bags) == before:
            return bags
        waiting = bag + passed_over


def similarity_within(vectors: Float[np.ndarray, "N D"], bags: Int[np.ndarray, "bags size"]) -> float:
    """The mean cosine of two different images of a bag, over all bags: |sum of unit vectors|^2 holds every pair."""
    size, total = bags.shape[1], 0.0
    for bag in bags:
        rows = vectors[bag].astype(np.float64)
        total += float((rows.sum(0) ** 2).sum() - (rows**2).sum())
    return total / (len(bags) * size * (size - 1))


def quality(
    vectors: Float[np.ndarray, "N D"], bags: Int[np.ndarray, "bags size"], seed: int = 0
) -> dict[str, float | int]:
    """How alike the images of a bag are, against as many random bags of the size, and how many images have a place."""
    num_bags, size = bags.shape
    order = generator(seed, "random bags to compare with", size).permutation(len(vectors))
    random = order[: len(order) // size * size].reshape(-1, size)[:num_bags]
    return {
        "bags": num_bags,
        "placed": bags.size / len(vectors),
        "left_out": len(vectors) - bags.size,
        "similarity": similarity_within(vectors, bags),
        "random_similarity": similarity_within(vectors, random),
    }
