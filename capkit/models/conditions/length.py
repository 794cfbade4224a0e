"""The number of words of a caption: an embedding for each (FlexCap, arXiv 2403.12026)."""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn

from capkit.errors import UsageError
from capkit.models.conditions.embedding import embedding
from capkit.utils.ranges import PositiveInt, check_ranges


@check_ranges
class Length(nn.Module):
    """Values are numbers of words from 1 to `longest`.

    Args:
        width: Of the decoder.
        longest: Number of words of the longest captions whose length is learned. Longer ones are trained on without
            their length, and cannot be asked for.
    """

    value_shape: tuple[int, ...] = ()
    num_vectors = 1

    def __init__(self, width: int, longest: PositiveInt = 32) -> None:
        super().__init__()
        self.longest = longest
        self.embedding = embedding(longest + 1, width)  # 0 stands where none is given

    def parse(self, value: Any) -> float:
        text = str(value)
        if not text.isdecimal() or not 1 <= int(text) <= self.longest:
            raise UsageError(f"expected 1 to {self.longest} words, as in training, got {text}")
        return float(text)

    def is_learned(self, values: Float[Tensor, " R"]) -> Bool[Tensor, " R"]:
        return values <= self.longest

    def forward(self, values: Float[Tensor, " R"]) -> Float[Tensor, "R 1 W"]:
        return self.embedding(values.long())[:, None]
