"""An image encoder's forward pass as a captured CUDA graph, where nothing of it trains: one launch instead of hundreds.

B pictures, N tokens, D width.
"""

import weakref
from collections import OrderedDict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capkit.decoding.capture import capture, capturing, own_stream
from capkit.decoding.cast import is_sharded
from capkit.decoding.graphs import state_of

MOST_GRAPHS = 2  # batch sizes of an encoder whose graphs are kept


class EncoderGraph:
    """The forward pass for one shape of pictures. Weights are read where they lay at capture."""

    def __init__(self, encoder: nn.Module, pixels: Float[Tensor, "B 3 H W"]) -> None:
        self._pixels = pixels.clone()
        self._graph = torch.cuda.CUDAGraph()
        stream = own_stream(self)
        with capturing(lambda: encoder(self._pixels), stream), capture(self._graph, stream):
            self._features = encoder(self._pixels)

    def __call__(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        self._pixels.copy_(pixels)
        self._graph.replay()
        return self._features.clone()


# By encoder: graphs by key, None for a key that came once.
_kept: weakref.WeakKeyDictionary[nn.Module, OrderedDict[Any, EncoderGraph | None]] = weakref.WeakKeyDictionary()


def is_on_gpu(pixels: Tensor) -> bool:
    return pixels.is_cuda


def can_graph(encoder: Any, pixels: Tensor) -> bool:
    """Whether the pass can be captured: on a GPU, without gradient, by a network that says so and is left as it is.

    Hooks would not run in a replay.
    """
    if not is_on_gpu(pixels) or torch.is_grad_enabled() or not getattr(encoder, "is_graphable", lambda: False)():
        return False
    return not any(
        part.training or part._forward_hooks or part._forward_pre_hooks for part in encoder.modules()
    ) and not any(is_sharded(parameter) for parameter in encoder.parameters())


def encode_by_graph(encoder: nn.Module, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
    """The encoder's tokens. A graph is captured when a shape comes for the second time."""
    kept = _kept.setdefault(encoder, OrderedDict())
    replaced = hash(tuple("forward" in vars(part) for part in encoder.modules()))  # compiled or recomputed layers
    key = tuple(pixels.shape), pixels.dtype, replaced, state_of([encoder])
    is_new = key not in kept
    graph = kept.setdefault(key, None)
    kept.move_to_end(key)
    while len(kept) > MOST_GRAPHS:
        kept.popitem(last=False)
    if is_new:
        return encoder(pixels)
    if graph is None:
        graph = kept[key] = EncoderGraph(encoder, pixels)
    return graph(pixels)
