"""Gradients at the zeros that stand for a missing image, in language models that keep them zeros.

A decoder with RMSNorm, and without biases or learned positions (Llama and its kin), maps a prefix of zeros to zeros in
every layer. There the norm's slope is 1 / sqrt(eps), some hundreds, twice a layer: the gradient at these positions
overflows float32 within a few layers, and times zero is NaN in the gradient of the weights.
"""

from typing import Any

from torch import Tensor, nn


def stop_gradients_at_zeros(lm: nn.Module) -> None:
    """Let no gradient pass back from an RMSNorm of `lm` where its input is zero in every dimension.

    The gradient of the weights stays the same: each of its terms from such a position is a product with zeros.
    """
    for module in lm.modules():
        if type(module).__name__.endswith("RMSNorm"):  # each family of transformers has a class of its own
            module.register_forward_pre_hook(_stop_at_zeros)


def _stop_at_zeros(_: nn.Module, inputs: tuple[Any, ...]) -> None:
    states: Tensor = inputs[0]
    if states.requires_grad:
        kept = (states.detach() != 0).any(-1, keepdim=True)
        states.register_hook(lambda gradient: gradient.where(kept, 0.0))
