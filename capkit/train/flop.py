"""Operations of a training step that matrix units do: products, convolutions and attention, by PyTorch's counter.

B images, K captions per image, L tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.models.encoders.compile import as_they_are
from capkit.train.mle_module import MLEModule
from capkit.train.rl.module import RLModule
from capkit.train.train_module import TrainModule
from capkit.types import CaptionBatch


@dataclass(frozen=True)
class StepFlop:
    """Two for each multiplication and addition. A step's: images x `per_image` + tokens x `per_token`."""

    per_image: float
    per_token: float = 0.0


def flop_of(module: TrainModule, batch: CaptionBatch) -> StepFlop | None:
    """Forward and backward pass of a step, image encoder included, measured with the batch's first image.

    In reinforcement learning also the rollout, whose tokens take what they take when they are read at once; not the
    rewards' own networks. What gradient checkpointing computes again is counted. None for a module of another kind.
    """
    model: Any = module.model
    one = batch.select([0])
    if isinstance(model, TrainableDualEncoder):
        return StepFlop(_flop(lambda: _embeddings(model, one), model))
    if isinstance(module, MLEModule):
        return StepFlop(_flop(lambda: module.objective(model, one, 0).loss_sum, model))
    if isinstance(module, RLModule):
        return _of_rl(module, model, one)
    return None


def _embeddings(model: TrainableDualEncoder, batch: CaptionBatch) -> Tensor:
    pairs = model(batch)
    return pairs.images.sum() + pairs.texts.sum()


def _of_rl(module: RLModule, model: Any, one: CaptionBatch) -> StepFlop:
    objective = module.objective
    num_samples, length = objective.num_samples, objective.rollout.max_length
    tokens = torch.full((1, num_samples, length + 1), model.tokenizer.eos_token_id, device=module.device)
    mask = torch.ones_like(tokens, dtype=torch.bool)

    def encode() -> Tensor:
        return model.encode(one).states.sum()

    def caption() -> Tensor:
        return model.logprobs(model.encode(one), tokens, mask).sum()

    with torch.no_grad():
        encoding, reading = _flop(encode, model), _flop(caption, model)
    encoding_update, update = _flop(encode, model), _flop(caption, model)
    written = 1 + objective.needs_greedy / num_samples  # the greedy caption's tokens are read in the rollout only
    per_image = encoding + objective.inner_updates * encoding_update
    per_caption = written * (reading - encoding) + objective.inner_updates * (update - encoding_update)
    return StepFlop(per_image, per_caption / (num_samples * length))


def _flop(compute: Callable[[], Any], model: Any) -> float:
    """Of a forward pass, and of the backward pass where gradients are on and any weight needs one.

    Attention is counted as the products that it is made of, since the counter does not know each fused kernel; nothing
    is compiled, whose kernels it would not see.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    with as_they_are(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = compute()
        if output.requires_grad:
            torch.autograd.grad(output, weights, allow_unused=True)
    return float(counter.get_total_flops())
