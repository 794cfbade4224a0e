"""How CUDA graphs are captured: each owner of graphs on a stream of its own, with nothing else in the way.

Torch keeps one workspace of cuBLAS for each stream, and newer versions (2.14, not yet 2.11) free it with any graph that
was captured on that stream. Other graphs of the stream then read and write memory that belongs to somebody else
(pytorch/pytorch#193402). So graphs share a stream only if they are given up together.
"""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from capkit.upstream.transformers import no_masks_of_ones

# Only calls of the capturing thread may break a capture: others go on, such as the loader's, which pins memory.
ERROR_MODE = "thread_local"
PRIORITIES = (0, -1, -2)
STREAMS = 32  # that torch has of each priority; it gives them out in turn

_taken: set[tuple[int, int]] = set()


def own_stream(owner: object) -> Any:
    """A `torch.cuda.Stream` for the captures of `owner`, on which no other living owner captures."""
    for priority in PRIORITIES:
        for _ in range(STREAMS):
            stream = torch.cuda.Stream(priority=priority)
            name = stream.device_index, stream.cuda_stream
            if name not in _taken:
                _taken.add(name)
                weakref.finalize(owner, _taken.discard, name)
                return stream
    raise RuntimeError(
        f"expected fewer than {len(_taken)} networks and shapes with CUDA graphs at once, got one more; "
        "let go of captioners and scorers that are no longer used"
    )


@contextmanager
def capturing(run: Callable[[], object], stream: torch.cuda.Stream) -> Iterator[None]:
    """For captures of `run`, which runs first, op by op: libraries choose kernels and allocate then, not in a capture.

    Autocast keeps no casts of weights within: a graph would read them instead of the weights. Nor is garbage collected,
    which would free another captioner's graphs, and their memory, in the midst of it.
    """
    keeps_casts, collects = torch.is_autocast_cache_enabled(), gc.isenabled()
    torch.set_autocast_cache_enabled(False)
    gc.disable()
    try:
        with no_masks_of_ones():
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                run()
            torch.cuda.current_stream().wait_stream(stream)
            yield
    finally:
        torch.set_autocast_cache_enabled(keeps_casts)
        if collects:
            gc.enable()


def capture(graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream, pool: Any = None) -> Any:
    """What is launched within is captured into `graph`, on the owner's stream."""
    return torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode=ERROR_MODE)
