"""Rows in which several captions of a picture share what stands in front of them, for passes over given captions.

A row is the prefix (ids in front, picture, prompt), then its captions one behind the other. A caption attends to the
prefix and to itself, not to the others, at the positions that it has alone: hidden states and gradients are those of a
row for each caption, and layers read the prefix once for all. One pass through the layers, without a cache, so that
layers may be run again, compiled, or gathered from several processes as in any other pass.

B images, K captions per image, C captions of a row, G = K / C rounded up rows of an image, P places of the prefix, T
places of a caption behind it, S = P + C T places of a row, W width.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def captions_a_row(num_captions: int, prefix: int, places: int, width: int) -> int:
    """C: how many captions stand in one row, for the fewest operations.

    A place costs a layer about 12 width^2 products, and 2 width more for each place that it is compared with, which
    are all of its row, since what a mask hides is computed too. In rows that are too long this outgrows the prefix.
    """

    def operations(captions: int) -> int:
        row = prefix + captions * places
        return math.ceil(num_captions / captions) * row * (6 * width + row)

    return min(range(1, num_captions + 1), key=operations)


@dataclass(frozen=True)
class SharedRows:
    """Rows of `captions` captions of `places` places each behind a prefix of `prefix` places."""

    prefix: int
    places: int
    captions: int

    def joined(self, tokens: Int[Tensor, "B K L"]) -> Int[Tensor, "R _"]:
        """The first token, which all captions of an image have in common, then the others' rest one behind the other.

        The last row of an image is filled up with zeros.
        """
        filled = nn.functional.pad(tokens[..., 1:], (0, 0, 0, -tokens.shape[1] % self.captions))
        rows = filled.unflatten(1, (-1, self.captions)).flatten(2)  # (B G CT)
        return torch.cat([tokens[:, :1, :1].expand(-1, rows.shape[1], -1), rows], -1).flatten(0, 1)

    def parted(
        self, hidden: Float[Tensor, "R S W"], num_images: int, num_captions: int
    ) -> Float[Tensor, "B K places W"]:
        """Of each caption the states from the prefix's last place, which predicts its first token."""
        own = hidden[:, self.prefix :].unflatten(1, (self.captions, self.places))
        last = hidden[:, None, self.prefix - 1 : self.prefix].expand(-1, self.captions, -1, -1)
        return torch.cat([last, own], 2).unflatten(0, (num_images, -1)).flatten(1, 2)[:, :num_captions]

    def mask(self, alone: Bool[Tensor, "B 1 Q Q"]) -> Bool[Tensor, "B 1 S S"]:
        """What a place attends to, from what it attends to in a row of one caption."""
        place, caption = self._places(alone.device)
        together = (caption[:, None] == caption) | (caption == 0)
        return alone[:, :, place[:, None], place] & together

    def positions(self, alone: Int[Tensor, "_ Q"] | Int[Tensor, "3 _ Q"]) -> Int[Tensor, "_ S"] | Int[Tensor, "3 _ S"]:
        """Positions, from those in a row of one caption."""
        return alone[..., self._places(alone.device)[0]]

    def _places(self, device: torch.device) -> tuple[Int[Tensor, " S"], Int[Tensor, " S"]]:
        """Of each place of a row: which one it is in a row of one caption, and whose; 0 is the prefix."""
        prefix = torch.arange(self.prefix, device=device)
        behind = torch.arange(self.captions * self.places, device=device)
        number = behind // max(1, self.places)
        place = torch.cat([prefix, self.prefix + behind - number * self.places])
        return place, torch.cat([torch.zeros_like(prefix), number + 1])
