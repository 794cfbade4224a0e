"""Exact nearest neighbours by inner product, in bounded memory: chunks of queries against chunks of the database.

N vectors, D width, Q queries of a chunk, M database rows of a chunk, K neighbours.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.curation.mining.chunk_files import kept_chunks
from capkit.curation.mining.running_top import RunningTop
from capkit.errors import UsageError
from capkit.utils.tensors import default_device

QUERIES = 2048  # what a kill can cost
DATABASE = {"cpu": 8192, "cuda": 65_536}  # rows compared at a time: 64 MB of similarities, or 512 MB
_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Found:
    """The neighbours of consecutive vectors, nearest first, equal similarities by index; -1 (and NaN) fills up.

    `duplicates` are the nearest `K` of the `num_duplicates` vectors that are more similar than the threshold.
    """

    neighbors: Int[np.ndarray, "Q K"]
    similarities: Float[np.ndarray, "Q K"]
    duplicates: Int[np.ndarray, "Q K"]
    num_duplicates: Int[np.ndarray, " Q"]


class Search:
    """For each of N unit vectors, the K most similar others, by comparing it with every one of them.

    Pairs more similar than `duplicate_threshold` are near-duplicates: counted and listed, but no neighbours. Finished
    chunks of queries stay in `folder`: an interrupted search goes on behind them, and a folder of another search is
    refused. On a GPU the vectors must fit into its memory; on the CPU they may be a memory map.

    `backend="faiss"` lets faiss (an optional package) compare on the CPU: the same neighbours, up to rounding in the
    last digits.

    Raises UsageError for vectors that are not of unit length, and where faiss is asked for and absent.
    """

    def __init__(
        self,
        vectors: Float[np.ndarray, "N D"],
        num_neighbors: int,
        folder: str | Path,
        duplicate_threshold: float | int = 1.0,
        backend: str = "exact",
        device: str | None = None,
    ) -> None:
        if not 1 <= num_neighbors < len(vectors):
            raise UsageError(
                f"num_neighbors must be 1 or more and less than the number of images; got {num_neighbors} "
                f"for {len(vectors)} images"
            )
        if not -1 <= duplicate_threshold <= 1:
            raise UsageError(f"duplicate_threshold is a cosine, -1 to 1; got {duplicate_threshold}")
        if backend not in ("exact", "faiss"):
            raise UsageError(f"backend must be exact or faiss; got {backend!r}")
        self.vectors, self.num_neighbors = vectors, num_neighbors
        # Of equal vectors the product is 1 up to rounding: a threshold of 1 means that there are no duplicates.
        self.duplicate_threshold = float(duplicate_threshold) if duplicate_threshold < 1 else np.inf
        self.folder, self.backend = Path(folder), backend
        self.device = torch.device(device or ("cpu" if backend == "faiss" else default_device()))
        self._index: Any = _faiss_index() if backend == "faiss" else None
        self._about = {
            "vectors": checked_digest(vectors),
            "num_neighbors": num_neighbors,
            "duplicate_threshold": str(self.duplicate_threshold),
            "backend": backend,
            "queries": QUERIES,
        }
        self._database: Any = None

    @property
    def num_chunks(self) -> int:
        return -(-len(self.vectors) // QUERIES)

    def __iter__(self) -> Iterator[Found]:
        """The chunks of all queries in order: read where they are finished, else searched and kept."""
        where, remedy = f"the unfinished search in {self.folder}", "give another run_dir, or delete the folder"
        search = lambda number: vars(self.chunk(number))  # noqa: E731
        for arrays in kept_chunks(self.folder, self._about, self.num_chunks, search, where, remedy):
            yield Found(**arrays)

    def chunk(self, number: int) -> Found:
        """The neighbours of one chunk of queries, searched now."""
        start = number * QUERIES
        rows = range(start, min(start + QUERIES, len(self.vectors)))
        return self._with_faiss(rows) if self._index is not None else self._exact(rows)

    def _exact(self, rows: range) -> Found:
        queries = self._block(rows.start, rows.stop)
        near = RunningTop(len(rows), self.num_neighbors, self.device)
        copies = RunningTop(len(rows), self.num_neighbors, self.device)
        num_copies = torch.zeros(len(rows), dtype=torch.long, device=self.device)
        step = DATABASE["cuda" if self.device.type == "cuda" else "cpu"]
        memory = torch.empty(len(rows) * step, device=self.device)  # the same for all: new pages cost time
        for start in range(0, len(self.vectors), step):
            stop = min(start + step, len(self.vectors))
            scores = memory[: len(rows) * (stop - start)].view(len(rows), stop - start)
            torch.mm(queries, self._block(start, stop).T, out=scores)
            _hide_selves(scores, rows, start)
            if scores.max() > self.duplicate_threshold:
                is_copy = scores > self.duplicate_threshold
                copies.add(scores, is_copy, start)
                num_copies += is_copy.sum(1)
                scores.masked_fill_(is_copy, -torch.inf)
            near.add(scores, scores >= near.floor(scores)[:, None], start)
        neighbors, similarities = near.sorted()
        return Found(neighbors, similarities, copies.sorted()[0], num_copies.cpu().numpy())

    def _block(self, start: int, stop: int) -> Float[Tensor, "M D"]:
        if self.device.type == "cuda":
            if self._database is None:
                self._database = torch.from_numpy(np.asarray(self.vectors, np.float32)).to(self.device)
            return self._database[start:stop]
        return torch.from_numpy(np.array(self.vectors[start:stop], np.float32))

    def _with_faiss(self, rows: range) -> Found:
        """Asks for more until every query has its neighbours behind all of its duplicates."""
        if self._database is None:
            self._database = self._index(self.vectors.shape[1])
            self._database.add(np.ascontiguousarray(self.vectors, np.float32))
        queries = np.ascontiguousarray(self.vectors[rows.start : rows.stop], np.float32)
        wanted = min(2 * self.num_neighbors + 1, len(self.vectors))
        while True:
            scores, columns = map(torch.from_numpy, self._database.search(queries, wanted))
            others = columns != torch.tensor(rows)[:, None]
            is_copy = (scores > self.duplicate_threshold) & others
            is_near = others & ~is_copy
            if wanted == len(self.vectors) or (is_near.sum(1) >= self.num_neighbors).all():
                break
            wanted = min(2 * wanted, len(self.vectors))
        near, copies = (RunningTop(len(rows), self.num_neighbors, self.device) for _ in range(2))
        copies.add(scores, is_copy, columns)
        near.add(scores, is_near, columns)
        neighbors, similarities = near.sorted()
        return Found(neighbors, similarities, copies.sorted()[0], is_copy.sum(1).numpy())


def _hide_selves(scores: Float[Tensor, "Q M"], rows: range, start: int) -> None:
    """A vector is neither its own neighbour nor its own duplicate."""
    first, last = max(rows.start, start), min(rows.stop, start + scores.shape[1])
    if first < last:
        own = torch.arange(first, last, device=scores.device)
        scores[own - rows.start, own - start] = -torch.inf


def _faiss_index() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UsageError(
            "backend=faiss needs faiss, which is not installed; pip install 'capkit[mining]', or backend=exact"
        ) from error
    return faiss.IndexFlatIP


def checked_digest(vectors: Float[np.ndarray, "N D"]) -> str:
    """A hash of the vectors. Raises UsageError where one is not of unit length."""
    state = hashlib.blake2b(str(vectors.shape).encode(), digest_size=16)
    for start in range(0, len(vectors), QUERIES):
        block = np.ascontiguousarray(vectors[start : start + QUERIES], np.float32)
        lengths = np.linalg.norm(block, axis=1)
        if not (np.abs(lengths - 1) < _UNIT_TOLERANCE).all():
            raise UsageError(
                f"nearest neighbours are searched among unit vectors; one of length {lengths.min():.4g} or "
                f"{lengths.max():.4g} came; check the encoder and its precision"
            )
        state.update(block.data)
    return state.hexdigest()
