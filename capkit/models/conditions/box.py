"""A box of the picture that the model sees: sines and cosines of its sides, through a small network.

R rows, S coordinates, F = S x (1 + 2 x num_frequencies) features.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from capkit.errors import UsageError
from capkit.utils.ranges import PositiveInt, check_ranges


@check_ranges
class Box(nn.Module):
    """Values are boxes (x0, y0, x1, y1) in [0, 1], of the width and height of the picture as the model sees it.

    FlexCap (arXiv 2403.12026) projects the four coordinates linearly. Deliberate difference: sines and cosines of pi,
    2 pi, 4 pi ... times each coordinate (arXiv 2006.10739) and a hidden layer, by which narrow decoders tell places
    apart.

    Args:
        width: Of the decoder.
        num_frequencies: Sines and cosines of each coordinate.
    """

    value_shape: tuple[int, ...] = (4,)
    num_vectors = 1

    def __init__(self, width: int, num_frequencies: PositiveInt = 4) -> None:
        super().__init__()
        self.num_frequencies = num_frequencies
        self.layers = nn.Sequential(
            nn.Linear(4 * (1 + 2 * num_frequencies), 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def parse(self, value: Any) -> list[float]:
        numbers = _numbers(value)
        if len(numbers) != 4 or not _is_box(*numbers):
            raise UsageError(
                f"expected a box x0,y0,x1,y1 with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, got {value}; give shares "
                "of the picture's width and height"
            )
        return numbers

    def is_learned(self, values: Float[Tensor, "R S"]) -> Bool[Tensor, " R"]:
        return torch.ones_like(values[:, 0], dtype=torch.bool)

    def features(self, values: Float[Tensor, "R S"]) -> Float[Tensor, "R F"]:
        """The coordinates, and their sines and cosines."""
        steps = math.pi * 2.0 ** torch.arange(self.num_frequencies, device=values.device, dtype=values.dtype)
        angles = values[..., None] * steps
        return torch.cat([values, angles.sin().flatten(1), angles.cos().flatten(1)], dim=1)

    def forward(self, values: Float[Tensor, "R S"]) -> Float[Tensor, "R 1 W"]:
        return self.layers(self.features(values))[:, None]


def _numbers(value: Any) -> list[float]:
    """Four numbers, of a list or of a text such as "0,0,.5,.5"; none of what is neither."""
    items = value.strip("[]() ").split(",") if isinstance(value, str) else value
    try:
        return [float(item) for item in items] if isinstance(items, Sequence) else []
    except (TypeError, ValueError):
        return []


def _is_box(x0: float, y0: float, x1: float, y1: float) -> bool:
    return 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
