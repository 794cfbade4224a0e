"""Gradients at the zeros that stand for a missing image, in language models that keep them zeros.

A decoder with RMSNorm, and without biases or learned positions (Llama and its kin), maps a prefix of zeros to zeros in
every layer. There the norm's slope is 1 / sqrt(eps), some hundreds, twice a layer: the gradient at these positions
overflows float32 within a few layers, and times zero is NaN in the gradient of the weights.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def stop_gradients_at_zeros(lm: nn.Module) -> None:
    """Let no gradient pass back through an RMSNorm of `lm` where its input is zero in every dimension.

    The gradient of the weights stays the same: each of its terms from such a position is a product with zeros.
    """
    for module in lm.modules():
        if type(module).__name__.endswith("RMSNorm"):  # each family of transformers has a class of its own
            module.register_forward_pre_hook(_stop_at_zeros)


def _stop_at_zeros(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (_StopAtZeros.apply(inputs[0]), *inputs[1:]) if inputs[0].requires_grad else inputs


class _StopAtZeros(torch.autograd.Function):
    """The same states. A function, not a hook on them: a graph that is compiled stays whole."""

    @staticmethod
    def forward(ctx: Any, states: Float[Tensor, "*rows W"]) -> Float[Tensor, "*rows W"]:
        ctx.save_for_backward((states != 0).any(-1, keepdim=True))
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "*rows W"]) -> Float[Tensor, "*rows W"]:
        (kept,) = ctx.saved_tensors
        return gradient.where(kept, 0.0)
