"""Forward passes of frozen networks as captured CUDA graphs: the host launches one call for hundreds of kernels."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from capkit.decoding.capture import capture, capturing, own_stream
from capkit.decoding.graphs import state_of

MOST_GRAPHS = 64  # shapes of one network that are kept


class _Graph:
    """A network's pass for inputs of one shape. Inputs, output and weights lie at fixed addresses."""

    def __init__(
        self, run: Callable[..., Tensor], inputs: tuple[Tensor, ...], stream: torch.cuda.Stream, pool: Any
    ) -> None:
        self.inputs = tuple(value.clone() for value in inputs)
        self.graph = torch.cuda.CUDAGraph()
        with capturing(lambda: run(*self.inputs), stream), capture(self.graph, stream, pool):
            self.output = run(*self.inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self.graph.replay()
        return self.output.clone()  # the next replay of any graph may write over it


class _Graphs:
    """The graphs of one network, which share stream and memory; None for a key that came once.

    They are dropped together: torch gives a pool up with the last graph in it, and the next capture into it breaks.
    """

    def __init__(self) -> None:
        self.stream = own_stream(self)
        self.clear()

    def clear(self) -> None:
        self.by_key: dict[Any, _Graph | None] = {}
        self.pool = torch.cuda.graph_pool_handle()


_kept: weakref.WeakKeyDictionary[nn.Module, _Graphs] = weakref.WeakKeyDictionary()


def by_graph(network: nn.Module, run: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`run(*inputs)` without gradient, by a graph that is captured when a shape comes for the second time.

    `run` passes the inputs, which lie on a GPU, through the network's frozen weights and never waits for the device.
    Its name tells it from other functions of the network. Precision is that of autocast at the call.
    """
    amp = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    # Autocast must not keep 16-bit copies of weights: they would lie in memory that the graph uses again.
    with torch.no_grad(), torch.autocast("cuda", amp, enabled=amp is not None, cache_enabled=False):
        graphs = _kept.get(network) or _kept.setdefault(network, _Graphs())
        key = run.__name__, tuple((value.shape, value.dtype) for value in inputs), state_of([network])
        if key not in graphs.by_key:
            if len(graphs.by_key) >= MOST_GRAPHS:
                torch.cuda.current_stream().synchronize()  # with replays, which read what is freed now
                graphs.clear()
            graphs.by_key[key] = None
            return run(*inputs)
        graph = graphs.by_key[key]
        if graph is None:
            graph = graphs.by_key[key] = _Graph(run, inputs, graphs.stream, graphs.pool)
        return graph(*inputs)


def release_graphs(network: nn.Module) -> None:
    """Free the memory of all graphs of a network."""
    _kept.pop(network, None)
