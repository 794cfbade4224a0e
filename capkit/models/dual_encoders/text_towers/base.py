"""The TextTower protocol, and what all towers do with a mask of real tokens.

M texts, L tokens, W width of the pooled output.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@runtime_checkable
class Tokenize(Protocol):
    """Texts to ids. Picklable and without weights: it runs in data workers."""

    max_length: int

    def __call__(self, texts: list[str]) -> tuple[Int[Tensor, "M L"], Bool[Tensor, "M L"]]:
        """Ids and a mask, True at real tokens, which stand first; L is the longest text's length."""
        ...

    def is_cut(self, texts: list[str]) -> list[bool]:
        """Whether each text is longer than `max_length`, so that its end is not read."""
        ...


@runtime_checkable
class TextTower(Protocol):
    """An nn.Module. Its output is pooled, not projected and not normalised.

    A text without a real token (a row of the mask that is all False) gets a defined vector too; padding a batch
    further does not change its vectors.
    """

    width: int
    tokenize: Tokenize

    def __call__(self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M W"]: ...

    def blocks(self) -> list[nn.Module]:
        """Layers in order, of which the last n can be tuned; empty where the tower has none."""
        ...

    def after_blocks(self) -> list[nn.Module]:
        """Modules applied after the layers: tuned together with the last of them."""
        ...


def never_empty(mask: Bool[Tensor, "M L"]) -> Bool[Tensor, "M L"]:
    """The mask with the first position of empty rows set: attention and means over nothing would be NaN."""
    first = torch.zeros_like(mask)
    first[:, 0] = True
    return mask | (first & ~mask.any(1, keepdim=True))


def pool(states: Float[Tensor, "M L W"], mask: Bool[Tensor, "M L"], pooling: str) -> Float[Tensor, "M W"]:
    """eos: the last real position, by the mask; cls: the first position; mean: over real positions.

    By position and never by token id: EOS may have the id of padding, and a cut text has no EOS.
    """
    if pooling == "cls":
        return states[:, 0]
    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)
    position = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * position).argmax(1)
    return states[torch.arange(len(states), device=mask.device), last]
