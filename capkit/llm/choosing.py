"""How a local model's next token is chosen, as processors of `generate`: none depends on the batch or its padding.

R rows (questions x beams), V vocabulary, T tokens so far, P of them given.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LogitsProcessor

from capkit.decoding.config import Decoding
from capkit.decoding.sampling import inverse_cdf, warpers
from capkit.utils import rng


class RepetitionPenalty(LogitsProcessor):
    """Scores of tokens that occur already are divided by `penalty`, or multiplied if negative (CTRL, 1909.05858, 4.1).

    `is_read` marks the given tokens that count: not padding, which a question has in one batch and not in another.
    """

    def __init__(self, penalty: float, is_read: Bool[Tensor, "B P"]) -> None:
        self._penalty, self._is_read = penalty, is_read

    def __call__(self, input_ids: Int[Tensor, "R T"], scores: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        given = self._is_read.repeat_interleave(len(input_ids) // len(self._is_read), 0)  # (R P), beams side by side
        is_read = torch.nn.functional.pad(given, (0, input_ids.shape[1] - given.shape[1]), value=True)
        seen = torch.zeros_like(scores).scatter_add_(1, input_ids, is_read.to(scores.dtype)) > 0
        return torch.where(seen, torch.where(scores > 0, scores / self._penalty, scores * self._penalty), scores)


class KeyedDraw(LogitsProcessor):
    """Draws each row's token by one uniform number per (id, position), as rollouts do, and leaves nothing else.

    `generate` takes the token by greedy search. `num_given` tokens stand before position 0.
    """

    def __init__(self, ids: Int[Tensor, " R"], num_given: int, temperature: float, top_p: float) -> None:
        self._ids, self._num_given = ids, num_given
        self._warp: Any = warpers(Decoding("sample", temperature=temperature, top_p=top_p))

    def __call__(self, input_ids: Int[Tensor, "R T"], scores: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        probabilities = self._warp(input_ids, scores.float()).softmax(-1)
        uniforms = rng.uniform(self._ids, input_ids.shape[1] - self._num_given)
        chosen = inverse_cdf(probabilities, uniforms)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)
