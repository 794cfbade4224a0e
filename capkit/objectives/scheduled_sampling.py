"""Scheduled sampling: a captioner reads its own words in place of some of the reference's (Bengio et al. 2015).

B images, K captions of each, R = B x K rows, T tokens that are read: all but the last.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from capkit.types import CaptionBatch, Context
from capkit.utils import rng


@runtime_checkable
class StepwiseModel(Protocol):
    """A captioner that reads one token at a time, in training too."""

    def start(self, context: Context, capacity: int) -> Any: ...
    def step(self, context: Context, tokens: Int[Tensor, "R 1"], cache: Any) -> Float[Tensor, "R V"]: ...


@torch.no_grad()
def sampled_inputs(
    model: StepwiseModel, context: Context, batch: CaptionBatch, probability: float | int, seed: int, step: int
) -> Int[Tensor, "B K T"]:
    """The tokens that the model reads, each of the reference's words replaced with this probability by a sampled one.

    A word is drawn from what the model predicts at its place, given the words before as they were drawn, in a pass
    without gradient. BOS, the prompt and padding stay. Draws follow from the seed, the step, the image's key and the
    caption's place among its captions: not from the batch, the number of ranks or a resume.
    """
    assert batch.tokens is not None and batch.mask is not None
    inputs = batch.tokens[..., :-1].clone()
    replaced, draws = _draws(batch, inputs.shape[1], inputs.shape[2], seed, step)
    replaced, draws = replaced.to(inputs.device) < probability, draws.to(inputs.device)
    replaced &= batch.mask[..., :-1]
    replaced[..., : batch.prompt_length] = False
    last = int(replaced.flatten(0, 1).any(0).nonzero().max()) if bool(replaced.any()) else 0
    cache = model.start(context, last + 1)
    for place in range(last):
        logits = model.step(context, inputs[..., place].reshape(-1, 1), cache)
        drawn = _drawn(logits.float(), draws[..., place + 1].reshape(-1)).view(inputs.shape[:2])
        inputs[..., place + 1] = torch.where(replaced[..., place + 1], drawn, inputs[..., place + 1])
    return inputs


def _draws(
    batch: CaptionBatch, captions: int, length: int, seed: int, step: int
) -> tuple[Float[Tensor, "B K T"], Float[Tensor, "B K T"]]:
    """Two numbers in [0, 1) at each place of each caption."""
    ids = [[rng.stable_hash(seed, "scheduled_sampling", step, key, k) for k in range(captions)] for key in batch.keys]
    every = torch.from_numpy(np.array(ids, dtype=np.int64))[..., None]
    places = torch.arange(length)
    return rng.uniform(every, 2 * places), rng.uniform(every, 2 * places + 1)


def _drawn(logits: Float[Tensor, "R V"], draws: Float[Tensor, " R"]) -> Int[Tensor, " R"]:
    """The token at which the distribution function passes a number in [0, 1)."""
    passed = logits.double().softmax(-1).cumsum(-1)
    return torch.searchsorted(passed, (draws.to(passed) * passed[:, -1])[:, None], right=True)[:, 0].clamp(
        max=logits.shape[-1] - 1
    )
