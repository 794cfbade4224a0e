"""Controllers of a modular captioner: at each word, how much each of its four modules says.

R rows, I input width, D width, T past steps.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capkit.errors import UsageError, did_you_mean
from capkit.text.word_classes import MODULES

Weights = Float[Tensor, "R 4"]
States = list[Tensor]  # with a row for each caption


class LSTMController(nn.Module):
    """An LSTM with a softmax over modules (CNM, Yang et al. 2019, section 3.2): a step costs the same at any place."""

    def __init__(self, input_width: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.cell, self.choose = nn.LSTMCell(input_width, width), nn.Linear(width, len(MODULES))

    def start(self, rows: int, like: Tensor) -> States:
        return [like.new_zeros((rows, self.cell.hidden_size)) for _ in range(2)]

    def forward(self, inputs: Float[Tensor, "R I"], states: States) -> tuple[Weights, States]:
        hidden, cell = self.cell(inputs, (states[0], states[1]))
        return self.choose(hidden).softmax(-1), [hidden, cell]


class SelfAttentionController(nn.Module):
    """Attends to what the modules were at past steps (CVLNM, Yang et al. 2022): a step costs as much as it has pasts.

    A past step is the sum of learned module embeddings, by its weights; in front of the first one stand zeros. The
    state is these T + 1 rows.
    """

    def __init__(self, input_width: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.query = nn.Linear(input_width, width)
        self.embeddings = nn.Parameter(torch.randn(len(MODULES), width) / width**0.5)
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.last_norm, self.choose = nn.LayerNorm(width), nn.Linear(width, len(MODULES))

    def start(self, rows: int, like: Tensor) -> States:
        return [like.new_zeros((rows, 1, self.embeddings.shape[1]))]

    def forward(self, inputs: Float[Tensor, "R I"], states: States) -> tuple[Weights, States]:
        past, query = states[0], self.query(inputs)[:, None]
        attended = self.norm(query + self.attention(query, past, past, need_weights=False)[0])
        weights = self.choose(self.last_norm(attended + self.feedforward(attended)))[:, 0].softmax(-1)
        return weights, [torch.cat([past, (weights @ self.embeddings)[:, None].to(past)], 1)]


class UniformController(nn.Module):
    """Equal weights: the control that chooses nothing."""

    def __init__(self, input_width: int, width: int, num_heads: int) -> None:
        super().__init__()

    def start(self, rows: int, like: Tensor) -> States:
        return []

    def forward(self, inputs: Float[Tensor, "R I"], states: States) -> tuple[Weights, States]:
        return inputs.new_full((len(inputs), len(MODULES)), 1 / len(MODULES)), []


CONTROLLERS: dict[str, Any] = {
    "lstm": LSTMController,
    "self_attention": SelfAttentionController,
    "uniform": UniformController,
}


def controller(kind: str, input_width: int, width: int, num_heads: int) -> nn.Module:
    """Raises UsageError for another kind."""
    if kind not in CONTROLLERS:
        raise UsageError(f"model.controller: there is no {kind!r}; {did_you_mean(kind, CONTROLLERS)}")
    return CONTROLLERS[kind](input_width, width, num_heads)
