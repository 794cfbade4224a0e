"""Counts of hashed n-grams and skip-grams (Baqapuri 2015, text channel B).

M texts, L words, T n-grams of a text, W width.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from capkit.errors import UsageError
from capkit.models.dual_encoders.text_towers.bags import BagMLP
from capkit.models.dual_encoders.text_towers.tokenize import HashedWords
from capkit.utils.ranges import AtLeastTwo, PositiveInt, check_ranges
from capkit.utils.rng import stable_hash, uniform

_ODD = (
    stable_hash("n-gram") | 1
)  # odd, so multiplication modulo 2^64 is invertible; makes the hash depend on word order


@check_ranges
class NGrams(nn.Module):
    """A two-layer perceptron of counts of hashed n-grams.

    `orders` are the n-gram lengths: [1] words, [1, 2] also bigrams, [1, 2, 3] also trigrams. `skips` are the numbers of
    words skipped by skip-grams: 1 counts "red left" in "red circle left". Each n-gram is hashed to one of `buckets`,
    equally in every process: there is no vocabulary, but n-grams can collide.
    """

    def __init__(
        self,
        orders: Sequence[PositiveInt] = (1, 2, 3),
        skips: Sequence[PositiveInt] = (),
        buckets: AtLeastTwo = 2**16,
        hidden: PositiveInt = 512,
        width: PositiveInt = 512,
        max_length: PositiveInt = 64,
    ):
        super().__init__()
        if not orders:
            raise UsageError("NGrams: orders: expected at least one order, such as [1, 2, 3], got none")
        # Offsets of an n-gram's words from its first: (0, 1) is a bigram, (0, 2) a skip-gram over one word.
        self.patterns = [tuple(range(n)) for n in orders] + [(0, skip + 1) for skip in skips]
        if len(set(self.patterns)) < len(self.patterns):
            raise UsageError(f"NGrams counts each n-gram once; got orders={list(orders)}, skips={list(skips)}")
        self.tokenize = HashedWords(max_length)
        self.buckets, self.width = buckets, width
        self.mlp = BagMLP(buckets, hidden, width)

    def forward(self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M W"]:
        ids, counted = self.hashed(tokens, mask)
        return self.mlp(ids, counted)

    def hashed(
        self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]
    ) -> tuple[Int[Tensor, "M T"], Bool[Tensor, "M T"]]:
        """The bucket of every n-gram, and whether the n-gram lies entirely within the text."""
        ids, counted = [], []
        for kind, places in enumerate(self.patterns):
            span = max(places) + 1
            if span > tokens.shape[1]:
                continue
            starts = tokens.shape[1] - span + 1
            combined = torch.zeros_like(tokens[:, :starts])
            for place in places:
                combined = combined * _ODD + tokens[:, place : place + starts]  # wraps around in int64, as intended
            ids.append((uniform(combined, kind) * self.buckets).long())
            counted.append(mask[:, span - 1 :])
        if not ids:
            return tokens.new_zeros((len(tokens), 1)), mask.new_zeros((len(tokens), 1))
        return torch.cat(ids, dim=1), torch.cat(counted, dim=1)

    def extra_repr(self) -> str:
        return f"patterns={self.patterns}"

    def blocks(self) -> list[nn.Module]:
        return []

    def after_blocks(self) -> list[nn.Module]:
        return []
