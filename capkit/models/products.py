"""Matrix products of gradients: sums stay in float32 to the end, and several linear maps of one input share theirs.

D width of the input.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from capkit.decoding.cast import is_sharded


def product(one: Float[Tensor, "I K"], other: Float[Tensor, "K J"], dtype: torch.dtype) -> Float[Tensor, "I J"]:
    """`one @ other` in `dtype`. A GPU writes the float32 sums of 16-bit factors as they are, without rounding them."""
    if one.is_cuda and dtype == torch.float32 and one.dtype in (torch.float16, torch.bfloat16):
        return torch.mm(one, other, out_dtype=dtype)
    return (one @ other).to(dtype)


def can_share_input(layers: Sequence[nn.Module]) -> bool:
    """Whether `linear_maps` can stand for calls of the layers: plain ones, without hooks, whose weights are here."""
    return torch.is_grad_enabled() and all(
        type(layer) is nn.Linear
        and layer.bias is not None
        and not is_sharded(layer.weight)
        and not (layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)
        and "forward" not in vars(layer)
        for layer in layers
    )


def linear_maps(x: Float[Tensor, "*rows D"], layers: Sequence[nn.Linear]) -> tuple[Float[Tensor, "*rows _"], ...]:
    """`layer(x)` of each layer with a bias, forward as one after the other, under autocast in its type.

    Backward, the gradient of x is one product, which sums over all outputs in float32, where autograd would add up one
    rounded gradient of the size of x for each layer; x is cast and kept once.
    """
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    biases = [layer.bias for layer in layers]
    return _LinearMaps.apply(x, dtype, *[layer.weight for layer in layers], *biases)


class _LinearMaps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, *parameters: Tensor) -> tuple[Tensor, ...]:
        count = len(parameters) // 2
        with torch.autocast(x.device.type, enabled=False):
            states = x.to(dtype)
            weights = [weight.to(dtype) for weight in parameters[:count]]
            outputs = [
                nn.functional.linear(states, weight, bias.to(dtype))
                for weight, bias in zip(weights, parameters[count:], strict=True)
            ]
        ctx.save_for_backward(states, *weights)
        ctx.types = x.dtype, parameters[0].dtype
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        states, *weights = ctx.saved_tensors
        of_outputs = torch.cat(gradients, dim=-1).flatten(0, -2)
        sizes = [len(weight) for weight in weights]
        of_x, of_weights, of_biases = None, [None] * len(weights), [None] * len(weights)
        if ctx.needs_input_grad[0]:
            of_x = product(of_outputs, torch.cat(weights), ctx.types[0]).view(states.shape)
        if any(ctx.needs_input_grad[2:]):
            of_weights = product(of_outputs.T, states.flatten(0, -2), ctx.types[1]).split(sizes)
            of_biases = of_outputs.sum(0, dtype=ctx.types[1]).split(sizes)
        return of_x, None, *of_weights, *of_biases
