"""Operations of a decoding step that a GPU does in one kernel each; elsewhere the plain operations they stand for.

A step of one token has little to compute: on a GPU it takes the time of its kernels' starts. Both ways agree up to
rounding.

R rows, B images, K captions per image, H heads, E head width, C slots of the cache, N image tokens, D = H x E width,
F = 3 D.
"""

import functools
import importlib.util

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from capkit.decoding.cache import PreallocatedLayer


@functools.cache
def has_kernels(device: torch.device) -> bool:
    """Whether the device is a GPU, and Triton there to compile for it."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


def can_fuse(module: nn.Module, device: torch.device) -> bool:
    """Whether the module's step may be written with these operations, which know no dropout and no gradient."""
    return has_kernels(device) and not module.training and not torch.is_grad_enabled()


def compute_type(states: Tensor) -> torch.dtype:
    """The type of matrix products of these states: autocast's, or their own."""
    device = states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype


def add_norm(
    x: Float[Tensor, "R D"], delta: Float[Tensor, "R D"] | None, norm: nn.LayerNorm
) -> tuple[Float[Tensor, "R D"], Float[Tensor, "R D"]]:
    """x + delta, and its layer norm in the type of the matrix product that follows."""
    dtype = compute_type(x)
    if has_kernels(x.device):
        from capkit.decoding import kernels

        return kernels.add_norm(x, delta, norm.weight, norm.bias, norm.eps, dtype)
    x = x if delta is None else x + delta
    return x, norm(x).to(dtype)


def attend_self(query_key_value: Float[Tensor, "R F"], layer: PreallocatedLayer, scale: float) -> Float[Tensor, "R D"]:
    """Attention of each row's new token to itself and to the cache's tokens; its key and value are cached."""
    keys, values, position = layer.append_one()
    if has_kernels(query_key_value.device):
        from capkit.decoding import kernels

        return kernels.attend_self(query_key_value, keys, values, position, scale)
    query, key, value = query_key_value.unflatten(-1, (3, keys.shape[1], -1)).unbind(1)
    keys[:, :, position], values[:, :, position] = key, value
    so_far = slice(position + 1)
    return scaled_dot_product_attention(
        query[:, :, None], keys[:, :, so_far], values[:, :, so_far], scale=scale
    ).flatten(1)


def attend_image(
    query: Float[Tensor, "R D"], keys: Float[Tensor, "B H N E"], values: Float[Tensor, "B H N E"], scale: float
) -> Float[Tensor, "R D"]:
    """Attention of each row to all tokens of its image, whose keys and values are read once for its K captions."""
    if has_kernels(query.device):
        from capkit.decoding import kernels

        return kernels.attend_image(query, keys, values, scale)
    per_image = query.unflatten(-1, (keys.shape[1], -1)).unflatten(0, (len(keys), -1)).transpose(1, 2)  # (B H K E)
    return scaled_dot_product_attention(per_image, keys, values, scale=scale).transpose(1, 2).reshape(query.shape)
