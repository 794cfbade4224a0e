"""A network's pass with gradient as two captured CUDA graphs, one for each direction: two launches for thousands."""

import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from capkit.decoding.capture import capture, capturing, own_stream
from capkit.decoding.cast import is_sharded
from capkit.decoding.graphs import state_of

MOST_GRAPHS = 4  # shapes of one network that are kept; each holds a gradient of all weights

Run = Callable[..., Tensor]


class GradientGraph:
    """`run(*inputs)` of a network and its gradient in the network's weights, for inputs of one shape.

    Inputs, weights, output and gradients lie at fixed addresses. What the forward pass keeps for the backward pass,
    that one or the next forward pass writes over.
    """

    def __init__(self, network: nn.Module, run: Run, inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
        self._inputs = tuple(value.clone() for value in inputs)
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with _twins(network, weights) as twins:

            def both() -> None:
                output = run(*self._inputs)
                found = torch.autograd.grad(output, [*twins, *weights], torch.zeros_like(output), allow_unused=True)
                if any(gradient is not None for gradient in found[len(twins) :]):
                    raise RuntimeError(
                        f"expected {type(network).__name__} to read its weights from its modules, got one that it "
                        "reads otherwise, which a captured graph would miss; set graph=false"
                    )

            stream = own_stream(self)
            with capturing(both, stream):
                pool = torch.cuda.graph_pool_handle()
                torch.cuda.empty_cache()  # the pool takes memory of its own, which passes op by op have left behind
                with capture(self._forward, stream, pool):
                    output = run(*self._inputs)
                self._slope = torch.zeros_like(output)
                with capture(self._backward, stream, pool):
                    gradients = torch.autograd.grad(output, twins, self._slope, allow_unused=True)
        self._output, self._gradients = output.detach(), gradients
        self.number = 0  # of forward passes
        self._waits = False  # for the backward pass of the last one

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self._forward.replay()
        self.number += 1
        self._waits = True
        return self._output.clone()

    def backward(self, slope: Tensor, number: int) -> tuple[Tensor | None, ...]:
        if number != self.number or not self._waits:
            raise RuntimeError(
                f"expected the first backward pass of forward pass {self.number}, the last one, got one of {number}, "
                "whose intermediate results are written over; run each backward pass once, before the next forward pass"
            )
        self._waits = False
        self._slope.copy_(slope)
        self._backward.replay()
        return self._gradients


class _Replayed(torch.autograd.Function):
    """The graphs as one operation, whose gradient autograd adds to the weights as it does with any other."""

    @staticmethod
    def forward(ctx: Any, graph: GradientGraph, inputs: tuple[Tensor, ...], *weights: Tensor) -> Tensor:
        output = graph.forward(inputs)
        ctx.graph, ctx.number = graph, graph.number
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        return (None, None, *ctx.graph.backward(slope, ctx.number))


@contextmanager
def _twins(network: nn.Module, weights: Sequence[Tensor]) -> Iterator[list[nn.Parameter]]:
    """Parameters at the same addresses, which stand for the weights within.

    The gradient of a weight is added up on the stream on which it was first used, for which no capture may wait.
    """
    twins = {id(weight): nn.Parameter(weight.detach()) for weight in weights}
    places = [
        (part, name, weight)
        for part in network.modules()
        for name, weight in part.named_parameters(recurse=False, remove_duplicate=False)
        if id(weight) in twins
    ]
    for part, name, weight in places:
        setattr(part, name, twins[id(weight)])
    try:
        yield [twins[id(weight)] for weight in weights]
    finally:
        for part, name, weight in places:
            setattr(part, name, weight)


@dataclass(frozen=True)
class _Weights:
    """A network's trained weights, and what its graphs hold fixed."""

    trained: Sequence[Tensor]
    key: Any

    @classmethod
    def of(cls, network: nn.Module) -> "_Weights":
        parts = list(network.modules())
        held = [weight for part in parts for weight in part._parameters.values() if weight is not None]
        trained = list({id(weight): weight for weight in held if weight.requires_grad}.values())
        replaced = hash(tuple("forward" in vars(part) for part in parts))  # compiled layers
        return cls(trained, (replaced, hash(tuple(map(id, trained))), state_of([network])))


# By network: graphs by key; None for a key that came once, False for one whose graphs did not fit into memory.
_kept: weakref.WeakKeyDictionary[nn.Module, OrderedDict[Any, GradientGraph | bool | None]] = weakref.WeakKeyDictionary()


def can_graph_gradient(network: nn.Module, device: torch.device) -> bool:
    """Whether the pass can be captured: on a GPU, with gradient, by a network in eval mode whose weights are whole.

    Hooks would not run in a replay.
    """
    if device.type != "cuda" or not torch.is_grad_enabled():
        return False
    return not any(
        part.training
        or part._forward_hooks
        or part._forward_pre_hooks
        or any(weight is not None and is_sharded(weight) for weight in part._parameters.values())
        for part in network.modules()
    )


def gradient_by_graph(network: nn.Module, run: Run, settings: Hashable, *inputs: Tensor) -> Tensor:
    """`run(*inputs)` with its gradient in the network's weights, by graphs that are captured when a shape comes again.

    `run` never waits for the device; whatever else it depends on is in `settings`. The inputs get no gradient. Graphs
    that do not fit into the GPU's memory are not captured, and a warning says so.
    """
    kept = _kept.setdefault(network, OrderedDict())
    weights = _Weights.of(network)
    key = settings, tuple((value.shape, value.dtype) for value in inputs), weights.key
    is_new = key not in kept
    graph = kept.setdefault(key, None)
    kept.move_to_end(key)
    while len(kept) > MOST_GRAPHS:
        kept.popitem(last=False)
    if graph is None and not is_new:
        graph = kept[key] = _captured(network, run, inputs, weights.trained)
    if isinstance(graph, GradientGraph):
        return _Replayed.apply(graph, inputs, *weights.trained)
    return run(*inputs)


def _captured(
    network: nn.Module, run: Run, inputs: Sequence[Tensor], weights: Sequence[Tensor]
) -> GradientGraph | bool:
    try:
        return GradientGraph(network, run, inputs, weights)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        warnings.warn(
            "the update's CUDA graphs do not fit into the GPU's memory beside the rest; its passes go on op by op, "
            "which takes longer; lower micro_batch_size, or set graph=false to leave this out",
            stacklevel=2,
        )
        return False


def release_gradient_graphs(network: nn.Module) -> None:
    """Free the memory of all gradient graphs of a network."""
    _kept.pop(network, None)
