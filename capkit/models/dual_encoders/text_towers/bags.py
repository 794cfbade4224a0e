"""Sparse counts through a two-layer perceptron: the shared part of bag of words and n-grams.

M texts, T counted things a text, W width.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from capkit.errors import UsageError


class BagMLP(nn.Module):
    """Linear, ReLU, Linear of a vector of counts, given as the ids that count: the first layer sums embeddings."""

    def __init__(self, num_ids: int, hidden: int, width: int):
        super().__init__()
        if min(hidden, width) < 1:
            raise UsageError(f"a bag's hidden and width must be 1 or more; got {hidden=}, {width=}")
        self.first = nn.EmbeddingBag(num_ids, hidden, mode="sum")
        nn.init.normal_(self.first.weight, std=hidden**-0.5)
        self.bias = nn.Parameter(self.first.weight.new_zeros(hidden))
        self.last = nn.Linear(hidden, width)

    def forward(self, ids: Int[Tensor, "M T"], counted: Bool[Tensor, "M T"]) -> Float[Tensor, "M W"]:
        summed = self.first(ids, per_sample_weights=counted.to(self.first.weight.dtype))
        return self.last((summed + self.bias).relu())
