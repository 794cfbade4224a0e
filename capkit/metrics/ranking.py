"""Ranks of the right answer among candidates, with ties resolved by chance instead of in anyone's favour.

Q queries, C candidates, D width, P entries of a query's own pool.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from capkit.errors import UsageError
from capkit.utils.tensors import unit

TIE_TOLERANCE = 1e-6
"""Cosines closer than this are tied: a text's embedding differs by rounding between batches, which must not rank it."""

_BLOCK_ELEMENTS = 2**23
_GATHER_ELEMENTS = 2**20  # gathered embeddings fit the processor's cache


@dataclass(frozen=True)
class Ranks:
    """Per query: wrong candidates above the best right one, wrong ones tied with it, right ones tied with it."""

    better: Int[Tensor, " Q"]
    tied: Int[Tensor, " Q"]
    right: Int[Tensor, " Q"]

    def hits(self, k: int) -> Float[Tensor, " Q"]:
        """Probability that a right candidate is among the first k when ties are shuffled uniformly.

        With e wrong and p right candidates tied for m places, a miss has probability C(e, m) / C(e + p, m). A hit has
        1 / n for n equal similarities at k = 1, never 1.
        """
        size = (self.tied + self.right).double()
        places = torch.minimum((k - self.better).clamp(min=0).double(), size)
        miss = torch.ones_like(size)
        for j in range(int(self.right.max()) if len(size) else 0):
            factor = (size - places - j).clamp(min=0) / (size - j).clamp(min=1)
            miss = torch.where(j < self.right, miss * factor, miss)
        return 1 - miss

    def expected(self) -> Float[Tensor, " Q"]:
        """Expected rank of the best right candidate over shuffled ties; 1 is best."""
        return self.better + (self.tied + self.right + 1).double() / (self.right + 1).double()

    def recall(self, k: int) -> float:
        """R@k as a fraction: the mean of `hits`."""
        return float(self.hits(k).mean())

    def median(self) -> float:
        """Median of the expected rank over queries (mean of the middle two for an even number)."""
        return float(self.expected().quantile(0.5))


def rank_counts(
    similarity: Float[Tensor, "Q C"], is_right: Bool[Tensor, "Q C"], tolerance: float = TIE_TOLERANCE
) -> Ranks:
    """Ranks from a block of similarities. Every query needs at least one right candidate.

    Candidates outside a query's pool have similarity -inf. Raises UsageError for a NaN similarity, which no candidate
    would beat, so that its query would rank first.
    """
    query, column = is_right.nonzero(as_tuple=True)
    right_values = similarity[query, column]
    best = similarity.new_full((len(similarity),), -torch.inf).scatter_reduce(0, query, right_values, reduce="amax")
    if not bool(similarity.amax(dim=1).isfinite().all()):  # amax passes NaN on
        raise UsageError("expected finite similarities, got NaN or infinity; check the encoder's embeddings")
    if bool(best.isneginf().any()):
        raise UsageError("expected a right candidate in every query's pool, got a query without; check keys and owners")
    better = _count(similarity > (best + tolerance)[:, None])
    near_best = (right_values >= best[query] - tolerance).long()
    right = torch.zeros_like(better).scatter_add(0, query, near_best)
    tied = _count(similarity >= (best - tolerance)[:, None]) - better - right
    return Ranks(better, tied, right)


def _count(flags: Bool[Tensor, "Q C"]) -> Int[Tensor, " Q"]:
    """Sum of each row. Summing bytes is ten times faster than summing bools."""
    return flags.view(torch.uint8).sum(dim=1, dtype=torch.int32).long()


def embedding_ranks(
    queries: Float[Tensor, "Q D"],
    candidates: Float[Tensor, "C D"],
    query_ids: Int[Tensor, " Q"],
    candidate_ids: Int[Tensor, " C"],
    tolerance: float = TIE_TOLERANCE,
) -> Ranks:
    """Ranks by inner product; a candidate is right if its id equals the query's.

    Computed in blocks of queries, so that the (Q C) matrix is never held whole, and in float64, so that TF32 cannot
    reorder candidates.
    """
    block = max(1, _BLOCK_ELEMENTS // max(1, len(candidates)))
    columns = candidates.double().T
    parts = [
        rank_counts(
            queries[start : start + block].double() @ columns,
            query_ids[start : start + block, None] == candidate_ids[None, :],
            tolerance,
        )
        for start in range(0, len(queries), block)
    ]
    return join_ranks(parts)


def pool_ranks(
    queries: Float[Tensor, "Q D"],
    candidates: Float[Tensor, "C D"],
    pools: Int[Tensor, "Q P"],
    tolerance: float = TIE_TOLERANCE,
) -> Ranks:
    """Ranks of each query within its own pool: rows of `candidates`, the right one first, padded with -1."""
    block = max(1, _GATHER_ELEMENTS // max(1, pools.shape[1] * queries.shape[1]))
    is_right = torch.zeros_like(pools, dtype=torch.bool)
    is_right[:, 0] = True
    parts = []
    for start in range(0, len(queries), block):
        rows = slice(start, start + block)
        entries = candidates[pools[rows].clamp(min=0)].double()  # (q P D)
        similarity = torch.einsum("qd,qpd->qp", queries[rows].double(), entries)
        absent = pools[rows] < 0
        parts.append(rank_counts(similarity.masked_fill(absent, -torch.inf), is_right[rows], tolerance))
    return join_ranks(parts)


def require_embeddings(**embeddings: Float[Tensor, "_ _"]) -> None:
    """Raises UsageError unless the named arguments are non-empty tensors of one width."""
    for name, vectors in embeddings.items():
        if not isinstance(vectors, Tensor) or vectors.ndim != 2 or not len(vectors):
            got = f"a tensor of shape {tuple(vectors.shape)}" if isinstance(vectors, Tensor) else type(vectors).__name__
            raise UsageError(f"{name}: expected a tensor (rows, width), got {got}; torch.as_tensor makes one of arrays")
    widths = {name: vectors.shape[1] for name, vectors in embeddings.items()}
    if len(set(widths.values())) > 1:
        raise UsageError(f"expected embeddings of one width, got {widths}; take all of them from one encoder")


def require_owner(name: str, owner: Int[Tensor, " M"], num_rows: int) -> None:
    """Raises UsageError unless `owner` holds one image row, an integer, for each of `num_rows` texts."""
    if not isinstance(owner, Tensor) or owner.shape != (num_rows,) or owner.is_floating_point():
        got = f"{owner.dtype} of shape {tuple(owner.shape)}" if isinstance(owner, Tensor) else type(owner).__name__
        raise UsageError(
            f"{name}: expected a tensor of {num_rows} whole numbers, the image of each text, got {got}; "
            "such as torch.tensor([0, 0, 1]) for two texts of the first image and one of the second"
        )


def join_ranks(parts: list[Ranks]) -> Ranks:
    """Concatenate blocks of queries."""
    return Ranks(*(torch.cat([getattr(part, name) for part in parts]) for name in ("better", "tied", "right")))


def normalize(vectors: Num[Tensor, "n D"]) -> Float[Tensor, "n D"]:
    """Unit norm in float32; a zero vector stays zero. Raises UsageError for embeddings that are not finite."""
    if not bool(vectors.isfinite().all()):
        raise UsageError("expected finite embeddings, got NaN or infinity; check the encoder and its precision")
    return unit(vectors)
