"""Exact nearest neighbours of one set of vectors in another: the same numbers in any chunks and on any device.

N queries, M vectors of the database, D width, Q queries of a chunk, K neighbours.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.curation.mining.chunk_files import kept_chunks
from capkit.curation.mining.running_top import RunningTop
from capkit.curation.mining.search import DATABASE, QUERIES, checked_digest
from capkit.errors import UsageError
from capkit.utils.store import fingerprint
from capkit.utils.tensors import default_device

_GRID = 2.0**24


def on_grid(vectors: Float[np.ndarray, "*n D"]) -> Float[Tensor, "*n D"]:
    """Vectors in float64, each number rounded to a multiple of 2^-24: products of unit vectors are exact then.

    They are sums of multiples of 2^-48 that never pass 1 (Cauchy-Schwarz), which takes 49 of a double's 53 bits. So no
    sum is rounded, in whatever order a device adds, and equal pairs have equal cosines. The rounding changes a cosine
    by as much as float32 does.
    """
    return torch.from_numpy(np.array(vectors, np.float64)).mul_(_GRID).round_().div_(_GRID)


def check_widths(one: Float[np.ndarray, "N D"], other: Float[np.ndarray, "M E"]) -> None:
    """Raises UsageError for vectors that no one encoder made."""
    if one.shape[1] != other.shape[1]:
        raise UsageError(
            f"expected vectors of one encoder, got widths {one.shape[1]} and {other.shape[1]}; embed both sides by the "
            "same one"
        )


class CrossSearch:
    """For each of N unit vectors, the K most similar ones of a database, by comparing it with every one of them.

    Iterating gives (indices, cosines) of each chunk of queries, best first, equal cosines (in float32) by index. The
    result depends on the vectors and K alone. Finished chunks stay in a folder of `cache_dir` that is named by all that
    they depend on: an interrupted search goes on behind them, and no other search reads them.

    Raises UsageError for vectors that are not of unit length or not of one width, and for more neighbours than there
    are vectors.
    """

    def __init__(
        self,
        queries: Float[np.ndarray, "N D"],
        database: Float[np.ndarray, "M E"],
        num_neighbors: int,
        cache_dir: str | Path,
        chunk_size: int = QUERIES,
        device: str | None = None,
    ) -> None:
        check_widths(queries, database)
        if not 1 <= num_neighbors <= len(database):
            raise UsageError(
                f"expected 1 to {len(database)} neighbours, as many as there are to compare with; got {num_neighbors}"
            )
        self.queries, self.database = queries, database
        self.num_neighbors, self.chunk_size = num_neighbors, chunk_size
        self.device = torch.device(device or default_device())
        self._about = {
            "queries": checked_digest(queries),
            "database": checked_digest(database),
            "num_neighbors": num_neighbors,
            "chunk_size": chunk_size,
        }
        self.folder = Path(cache_dir) / f"search-{fingerprint(self._about)}"

    @property
    def num_chunks(self) -> int:
        return -(-len(self.queries) // self.chunk_size)

    def __iter__(self) -> Iterator[tuple[Int[np.ndarray, "Q K"], Float[np.ndarray, "Q K"]]]:
        where = f"the search in {self.folder}"
        for arrays in kept_chunks(self.folder, self._about, self.num_chunks, self.chunk, where, "delete the folder"):
            yield arrays["indices"], arrays["similarities"]

    def chunk(self, number: int) -> dict[str, np.ndarray]:
        """The neighbours of one chunk of queries, searched now."""
        queries = self._block(self.queries, number * self.chunk_size, self.chunk_size)
        near = RunningTop(len(queries), self.num_neighbors, self.device)
        step = DATABASE["cuda" if self.device.type == "cuda" else "cpu"]
        for start in range(0, len(self.database), step):
            # Rounded before they are compared: what float32 calls equal is ordered by index.
            scores = (queries @ self._block(self.database, start, step).T).float()
            near.add(scores, scores >= near.floor(scores)[:, None], start)
        indices, similarities = near.sorted()
        return {"indices": indices, "similarities": similarities}

    def _block(self, vectors: Float[np.ndarray, "N D"], start: int, size: int) -> Float[Tensor, "M D"]:
        return on_grid(vectors[start : start + size]).to(self.device)
