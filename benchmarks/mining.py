"""Nearest neighbours, exact: time and memory on unit vectors, `python -m benchmarks.mining [--images N] [--queries N]`.

Without arguments: 20,000 x 512 side by side with the plain way, one N x N matrix and argpartition, and with faiss where
it is installed; all results are compared. `--images 100000`: capkit alone, every query. `--images 1000000 --queries
4096`: a slice of the queries, from which the time of all is extrapolated. Vectors have 1,000 clusters, as pictures do.
"""

import argparse
import importlib.util
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from capkit.curation.mining.search import QUERIES, Found, Search

WIDTH, NEIGHBORS, CLUSTERS, SPREAD = 512, 100, 1000, 0.8
PLAIN_IMAGES = 20_000


def unit_vectors(num_images: int, seed: int = 0) -> np.ndarray:
    """float32, made in parts so that no float64 copy of all exists."""
    draw = np.random.default_rng(seed)
    centers = draw.standard_normal((CLUSTERS, WIDTH), np.float32)
    vectors = np.empty((num_images, WIDTH), np.float32)
    for start in range(0, num_images, 10_000):
        part = vectors[start : start + 10_000]
        part[:] = centers[draw.integers(0, CLUSTERS, len(part))]
        part += SPREAD * draw.standard_normal(part.shape, np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def plain_neighbors(vectors: np.ndarray) -> np.ndarray:
    """The whole matrix at once."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    best = np.argpartition(-scores, NEIGHBORS, axis=1)[:, :NEIGHBORS]
    order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
    return np.take_along_axis(best, order, 1)


def searched(vectors: np.ndarray, backend: str, num_chunks: int | None = None) -> Iterator[Found]:
    with tempfile.TemporaryDirectory() as folder:
        search = Search(vectors, NEIGHBORS, Path(folder), 1.0, backend)
        if num_chunks is None:
            yield from search
        else:
            yield from map(search.chunk, range(num_chunks))
        if search.device.type == "cuda":
            print(f"GPU memory at most {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")


def timed(name: str, work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """Wall time, and processor time beside it: other work on the machine lengthens the first far more."""
    start, start_cpu = time.perf_counter(), time.process_time()
    result = work()
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    memory = f"memory of the process at most {peak_gib():.2f} GiB so far"
    print(f"{name:24s} {seconds:8.1f} s ({cpu:.1f} s of processor time)   {memory}", flush=True)
    return result, seconds, cpu


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def all_neighbors(vectors: np.ndarray, backend: str, num_chunks: int | None = None) -> np.ndarray:
    return np.concatenate([found.neighbors for found in searched(vectors, backend, num_chunks)])


def same(first: np.ndarray, second: np.ndarray) -> float:
    """The share of neighbours that both name at the same rank; rounding may swap two that are equally near."""
    return float((first == second).mean())


def side_by_side(num_images: int) -> None:
    vectors = unit_vectors(num_images)
    ours, *_ = timed("capkit, exact", lambda: all_neighbors(vectors, "exact"))
    if importlib.util.find_spec("faiss"):
        theirs, *_ = timed("faiss, IndexFlatIP", lambda: all_neighbors(vectors, "faiss"))
        print(f"  same neighbours as faiss: {same(ours, theirs):.6f}")
    plain, *_ = timed("numpy, whole matrix", lambda: plain_neighbors(vectors))
    print(f"  same neighbours as numpy: {same(ours, plain):.6f}")


def alone(num_images: int, num_queries: int | None) -> None:
    vectors = unit_vectors(num_images)
    print(f"{num_images:,} x {WIDTH}, top {NEIGHBORS}; memory before the search {peak_gib():.2f} GiB")
    chunks = None if num_queries is None else -(-num_queries // QUERIES)
    found, seconds, cpu = timed("capkit, exact", lambda: all_neighbors(vectors, "exact", chunks))
    if chunks is not None:
        times = num_images / len(found)
        print(
            f"  {len(found):,} queries; all of them: {seconds * times:,.0f} s ({cpu * times:,.0f} s of processor time)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=None)
    parser.add_argument("--queries", type=int, default=None)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    print(f"{torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'}, {torch.get_num_threads()} threads")
    if arguments.images is None:
        side_by_side(PLAIN_IMAGES)
    else:
        alone(arguments.images, arguments.queries)


if __name__ == "__main__":
    main()
