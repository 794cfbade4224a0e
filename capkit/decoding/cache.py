"""A KV cache whose memory is taken once.

R rows, G key-value heads, T new tokens, S tokens so far, C slots, E head width.
"""

from functools import partial
from typing import cast

from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer, written into buffers of `capacity` tokens: nothing is copied as they grow."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.buffers: list[Tensor] = []

    def update(
        self,
        key_states: Float[Tensor, "R G T E"],
        value_states: Float[Tensor, "R G T E"],
        *args: object,
        **kwargs: object,
    ) -> tuple[Float[Tensor, "R G S E"], Float[Tensor, "R G S E"]]:
        """Append T tokens; returns the keys and values of all tokens so far, as views."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not self.buffers:
            self.device, self.is_initialized = key_states.device, True
            self.buffers = [self._empty_like(states, len(states)) for states in (key_states, value_states)]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        return self._view(end)

    def append_one(self) -> tuple[Float[Tensor, "R G C E"], Float[Tensor, "R G C E"], int]:
        """Make room for one more token, which the caller writes; the buffers, and its place in them."""
        position = self.get_seq_length()
        self._view(position + 1)
        keys, values = self.buffers
        return keys, values, position

    def _empty_like(self, states: Tensor, num_rows: int) -> Tensor:
        return states.new_empty((num_rows, states.shape[1], self.capacity, states.shape[3]))

    def _view(self, length: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (buffer[:, :, :length] for buffer in self.buffers)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row. The tokens so far are copied; those to come differ."""
        length = self.get_seq_length()
        wider = [self._empty_like(buffer, repeats * len(buffer)) for buffer in self.buffers]
        for buffer, old in zip(wider, self.buffers, strict=True):
            buffer[:, :, :length] = old[:, :, :length].repeat_interleave(repeats, dim=0)
        self.buffers = wider
        self._view(length)

    def reorder_cache(self, beam_idx: Int[Tensor, " R"]) -> None:
        length = self.get_seq_length()
        for buffer in self.buffers:
            buffer[:, :, :length] = buffer[:, :, :length].index_select(0, beam_idx.to(buffer.device))


class SharedCache(DynamicCache):
    """Keys and values of images, of which each image's captions read the same row."""

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Captions become rows; images stay as they are."""


class PreallocatedCache(DynamicCache):
    """A cache of any number of layers, each of `capacity` tokens."""

    def __init__(self, capacity: int) -> None:
        Cache.__init__(self, layer_class_to_replicate=partial(PreallocatedLayer, capacity))  # type: ignore[arg-type]

    def preallocated(self, layer: int) -> PreallocatedLayer:
        return cast(PreallocatedLayer, self.layers[layer])
