"""Convolutions over word embeddings with max pooling (Baqapuri 2015, text channel C).

M texts, L tokens, E width of an embedding, C channels, W width of the output.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from capkit.errors import UsageError
from capkit.models.dual_encoders.text_towers.base import never_empty
from capkit.models.dual_encoders.text_towers.tokenize import Subwords
from capkit.utils.ranges import PositiveInt, check_ranges


@check_ranges
class ConvText(nn.Module):
    """Convolutions over word embeddings, max pooling over real positions, and a two-layer perceptron.

    There is one convolution with `channels` outputs per size in `windows`. At position t it covers the words
    t - window + 1 .. t, with zeros before the text, so the result does not depend on padding.
    """

    def __init__(
        self,
        tokenizer: Any = None,
        windows: Sequence[PositiveInt] = (2, 3, 5),
        embedding: PositiveInt = 128,
        channels: PositiveInt = 256,
        width: PositiveInt = 512,
        max_length: PositiveInt = 64,
    ):
        super().__init__()
        if tokenizer is None:
            raise UsageError("ConvText needs a tokenizer: tokenizer=word, a name, a folder or an object")
        if not windows:
            raise UsageError("ConvText: windows: expected at least one window, such as [2, 3, 5], got none")
        self.tokenize = Subwords(tokenizer, max_length)
        self.tokenizer = self.tokenize.tokenizer
        self.width = width
        self.embed = nn.Embedding(len(self.tokenizer), embedding)
        self.windows = nn.ModuleList(nn.Conv1d(embedding, channels, w, padding=w - 1) for w in windows)
        self.mlp = nn.Sequential(nn.Linear(channels * len(windows), width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, tokens: Int[Tensor, "M L"], mask: Bool[Tensor, "M L"]) -> Float[Tensor, "M W"]:
        mask = never_empty(mask)
        words = (self.embed(tokens) * mask.unsqueeze(-1)).transpose(1, 2)  # (M E L)
        length = tokens.shape[1]
        pooled = [
            convolution(words)[..., :length].masked_fill(~mask[:, None], float("-inf")).amax(-1)
            for convolution in self.windows
        ]
        return self.mlp(torch.cat(pooled, dim=1).relu())

    def blocks(self) -> list[nn.Module]:
        return []

    def after_blocks(self) -> list[nn.Module]:
        return []
