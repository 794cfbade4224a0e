"""A bin of a score, such as how well a caption fits its image: an embedding for each (NoC, arXiv 2212.13563)."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from capkit.errors import UsageError
from capkit.models.conditions.embedding import embedding
from capkit.utils.ranges import AtLeastTwo, check_ranges


@check_ranges
class Bins(nn.Module):
    """Values are bins from 0, the lowest, to `count` - 1; "bottom" and "top" name these two.

    Args:
        width: Of the decoder.
        count: Number of bins.

    Raises UsageError for a bin of the data beyond the last one; on a GPU, where a look at the values would wait, the
    lookup itself fails.
    """

    value_shape: tuple[int, ...] = ()
    num_vectors = 1

    def __init__(self, width: int, count: AtLeastTwo = 8) -> None:
        super().__init__()
        self.count = count
        self.embedding = embedding(count, width)

    def parse(self, value: Any) -> float:
        text = str(value)
        number = {"bottom": 0, "top": self.count - 1}.get(text, int(text) if text.isdecimal() else self.count)
        if number >= self.count:
            raise UsageError(f"expected top, bottom or a bin from 0 to {self.count - 1}, got {text}")
        return float(number)

    def is_learned(self, values: Float[Tensor, " R"]) -> Bool[Tensor, " R"]:
        return torch.ones_like(values, dtype=torch.bool)

    def forward(self, values: Float[Tensor, " R"]) -> Float[Tensor, "R 1 W"]:
        if not values.is_cuda and len(values) and values.max() >= self.count:
            raise UsageError(
                f"expected bins from 0 to {self.count - 1}, got {int(values.max())} of the data; give the model as "
                "many bins (model.conditions.NAME.count) as the data has"
            )
        return self.embedding(values.long())[:, None]
