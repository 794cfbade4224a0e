"""Two-layer perceptron of sparse counts, shared by bag of words and n-grams.

M texts, T counted items per text, W width.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from capkit.errors import UsageError


class BagMLP(nn.Module):
    """Linear, ReLU, Linear of a count vector given as ids, so that the first layer is a sum of embeddings."""

    def __init__(self, num_ids: int, hidden: int, width: int):
        super().__init__()
        if min(hidden, width) < 1:
            raise UsageError(f"a bag's hidden and width must be at least 1; got {hidden=}, {width=}")
        self.first = nn.EmbeddingBag(num_ids, hidden, mode="sum")
        nn.init.normal_(self.first.weight, std=hidden**-0.5)
        self.bias = nn.Parameter(self.first.weight.new_zeros(hidden))
        self.last = nn.Linear(hidden, width)

    def forward(self, ids: Int[Tensor, "M T"], counted: Bool[Tensor, "M T"]) -> Float[Tensor, "M W"]:
        summed = self.first(ids, per_sample_weights=counted.to(self.first.weight.dtype))
        return self.last((summed + self.bias).relu())
