"""Bag of words: counts of a text's words without their order (Baqapuri 2015, text channel A).

M texts, L tokens, W width.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from capkit.errors import UsageError, check_choice
from capkit.models.dual_encoders.text_towers.bags import BagMLP
from capkit.models.dual_encoders.text_towers.tokenize import Subwords
from capkit.utils.ranges import PositiveInt, check_ranges

COUNTS = ("tf", "binary")


@check_ranges
class BagOfWords(nn.Module):
    """A two-layer perceptron of word counts: `counts` is "tf" (frequencies) or "binary" (presence).

    Words are sorted before summation, so texts with the same words in any order get bit-equal vectors.
    """

    def __init__(
        self,
        tokenizer: Any = None,
        counts: str = "tf",
        hidden: PositiveInt = 512,
        width: PositiveInt = 512,
        max_length: PositiveInt = 64,
    ):
        super().__init__()
        if tokenizer is None:
            raise UsageError("BagOfWords needs a tokenizer: tokenizer=word, a name, a folder or an object")
        check_choice("BagOfWords.counts", counts, COUNTS)
        self.tokenize = Subwords(tokenizer, max_length)
        self.tokenizer = self.tokenize.tokenizer
        self.counts, self.width = counts, width
        self.mlp = BagMLP(len(self.tokenizer), hidden, width)

    def forward(self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M W"]:
        nowhere = len(self.tokenizer)  # sorts after every real id
        ids = tokens.masked_fill(~mask, nowhere).sort(dim=1).values
        counted = ids < nowhere
        if self.counts == "binary":
            counted &= torch.cat([torch.ones_like(counted[:, :1]), ids[:, 1:] != ids[:, :-1]], dim=1)
        return self.mlp(ids.masked_fill(~counted, 0), counted)

    def extra_repr(self) -> str:
        return f"counts={self.counts}"

    def blocks(self) -> list[nn.Module]:
        return []

    def after_blocks(self) -> list[nn.Module]:
        return []
