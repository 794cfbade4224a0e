"""The states of a recurrent captioner, as the cache that generation keeps. R rows."""

from jaxtyping import Int
from torch import Tensor
from transformers import Cache


class RecurrentCache(Cache):
    """Any number of tensors with a row for each caption, and how many tokens they have read.

    They follow captions that are repeated, and beams.
    """

    def __init__(self, states: list[Tensor]) -> None:
        super().__init__(layers=[])
        self.states, self._length = states, 0

    def keep(self, states: list[Tensor]) -> None:
        """The states after one more token."""
        self.states, self._length = states, self._length + 1

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._length

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.states = [state.repeat_interleave(repeats, 0) for state in self.states]

    def reorder_cache(self, beam_idx: Int[Tensor, " R"]) -> None:
        self.states = [state.index_select(0, beam_idx.to(state.device)) for state in self.states]
