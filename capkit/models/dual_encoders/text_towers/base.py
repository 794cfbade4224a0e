"""The protocols of text towers and their tokenizers, and pooling with a mask of real tokens.

M texts, L tokens, W width of the pooled output.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@runtime_checkable
class Tokenize(Protocol):
    """Converts texts to ids. Picklable and without weights, since it runs in data workers."""

    max_length: int

    def __call__(self, texts: list[str]) -> tuple[Int[Tensor, "M L"], Bool[Tensor, "M L"]]:
        """Ids, padded at the end to the longest text, and a mask that is True at real tokens."""
        ...

    def is_cut(self, texts: list[str]) -> list[bool]:
        """Whether each text is longer than `max_length` and is truncated."""
        ...


@runtime_checkable
class TextTower(Protocol):
    """An nn.Module whose output is pooled, but neither projected nor normalised.

    A text without real tokens (an all-False row of the mask) gets a finite vector. Additional padding does not change
    the output.
    """

    width: int
    tokenize: Tokenize

    def __call__(self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M W"]: ...

    def blocks(self) -> list[nn.Module]:
        """Layers in order, for tuning the last n of them; empty if there are none."""
        ...

    def after_blocks(self) -> list[nn.Module]:
        """Modules applied after the layers, tuned together with the last ones."""
        ...


def never_empty(mask: Bool[Tensor, "M L"]) -> Bool[Tensor, "M L"]:
    """Set the first position of empty rows, since attention and means over no position would be NaN."""
    first = torch.zeros_like(mask)
    first[:, 0] = True
    return mask | (first & ~mask.any(1, keepdim=True))


def pool(states: Float[Tensor, "M L W"], mask: Bool[Tensor, "M L"], pooling: str) -> Float[Tensor, "M W"]:
    """Pool states to one vector: "eos": the last real position; "cls": the first; "mean": over real positions.

    EOS is found by the mask and never by token id: it may have the id of padding, and a truncated text has none.
    """
    if pooling == "cls":
        return states[:, 0]
    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)
    position = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * position).argmax(1)
    return states[torch.arange(len(states), device=mask.device), last]
