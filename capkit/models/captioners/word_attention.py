"""Where a captioner looks as it writes each word of a caption.

B images, K captions per image, L tokens, N context tokens, W words, S the side of the grid of image tokens.
"""

from dataclasses import dataclass
from math import isqrt
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.errors import UsageError
from capkit.text.tokenizers import prompt_ids
from capkit.text.words_of_tokens import words_of_tokens
from capkit.types import CaptionBatch, Context, Samples


@runtime_checkable
class Attending(Protocol):
    """A captioner whose attention to the image can be read."""

    tokenizer: Any
    prompt: str

    def encode(self, batch: CaptionBatch) -> Context: ...

    def cross_attention(self, context: Context, tokens: Int[Tensor, "B K L"]) -> Float[Tensor, "B K L-1 N"]:
        """Attention to each context token while `tokens[..., 1:]` are predicted: mean over layers and heads.

        One pass with teacher forcing; rows sum to 1. Raises UsageError, with the reason, if there are no weights.
        """
        ...

    def tokens_before_grid(self) -> int:
        """Number of context tokens, such as CLS, in front of those that are cells of the picture, row by row.

        Raises UsageError, with the reason, if the context is no grid.
        """
        ...


@dataclass(frozen=True)
class WordAttention:
    """The words of a caption, and for each one the share of attention that each cell of the picture gets.

    The picture is the one that the model sees: the transform's square. Each word's shares sum to 1.
    """

    words: list[str]
    shares: Float[np.ndarray, "W S S"]


def mean_of_layers(layers: list[Tensor], tokens: Int[Tensor, "B K L"]) -> Float[Tensor, "B K L-1 N"]:
    """The mean of layers' (R T N) weights; what stands in front of the tokens, such as conditions, is left out."""
    num_predicted = tokens.shape[-1] - 1
    return torch.stack(layers).mean(0)[:, -num_predicted:].unflatten(0, tokens.shape[:2])


def require_attention(model: Any) -> Attending:
    """The captioner itself, if its attention can be read. Raises UsageError with the reason if not."""
    if not isinstance(model, Attending):
        raise UsageError(
            f"attention: expected a captioner that attends to image tokens in layers of their own, got "
            f"{type(model).__name__}, whose image is a prefix of the text; take model=encoder_decoder or "
            "model=vision_encoder_decoder"
        )
    model.tokens_before_grid()
    return model


@torch.no_grad()
def word_attention(model: Attending, context: Context, samples: Samples) -> list[WordAttention]:
    """Of the first caption of each image. Tokens of a word are averaged; only cells of the picture count."""
    assert samples.tokens is not None and samples.mask is not None
    tokens, mask = samples.tokens[:, :1], samples.mask[:, :1]
    weights = model.cross_attention(context, tokens)[:, 0, :, model.tokens_before_grid() :].double().cpu()
    side = isqrt(weights.shape[-1])
    if side**2 != weights.shape[-1]:
        raise UsageError(
            f"attention: expected a square grid of image tokens, got {weights.shape[-1]} of them; take an encoder "
            "whose tokens are a grid (docs/attention.md)"
        )
    given = len(prompt_ids(model.tokenizer, model.prompt))
    found = []
    for row, ids, real in zip(weights, tokens[:, 0].tolist(), mask[:, 0].sum(-1).tolist(), strict=True):
        words = words_of_tokens(model.tokenizer, ids[given:real])
        # the row before a token is that of its prediction
        looks = [row[torch.tensor(places) + given - 1].mean(0).reshape(side, side) for _, places in words]
        shares = torch.stack(looks) if looks else row.new_zeros((0, side, side))
        shares = shares / shares.sum((1, 2), keepdim=True)
        found.append(WordAttention([word for word, _ in words], shares.numpy()))
    return found
