"""An embedding of a few values, as wide and as large as a decoder's token embeddings."""

from torch import nn


def embedding(num_values: int, width: int) -> nn.Embedding:
    """Normal of half the standard deviation 1 / sqrt(width), like the token embeddings of a decoder trained anew."""
    table = nn.Embedding(num_values, width)
    nn.init.normal_(table.weight, std=0.5 * width**-0.5)
    return table
