"""Features of boxes: means of an encoder's cells, weighted by how much of each cell a box covers."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from capkit.data.placement import Box
from capkit.errors import UsageError


def of_boxes(cells: Float[Tensor, "N D"], boxes: Sequence[Box]) -> Float[Tensor, "R D"]:
    """Of each box (x0, y0, x1, y1), in shares of the square, the mean of a square grid's cells, given row by row.

    Raises UsageError for tokens that form no square, and for a box without area.
    """
    side = math.isqrt(len(cells))
    if side * side != len(cells):
        raise UsageError(
            f"boxes of features: expected a square grid of tokens, got {len(cells)}; use an encoder that gives a grid"
        )
    edges = torch.tensor(boxes, dtype=torch.float64) * side
    firsts = torch.arange(side, dtype=torch.float64)
    across, down = (
        (edges[:, high, None].minimum(firsts + 1) - edges[:, low, None].maximum(firsts)).clamp(min=0)
        for low, high in ((0, 2), (1, 3))
    )
    covered = (down[:, :, None] * across[:, None]).flatten(1)  # (R N)
    areas = covered.sum(1, keepdim=True)
    if (areas <= 0).any():
        raise UsageError("boxes of features: expected boxes inside the picture, got one without area; correct the data")
    return (covered / areas).to(cells) @ cells
