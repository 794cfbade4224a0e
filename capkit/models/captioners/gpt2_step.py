"""One token of GPT-2 by fused operations, where transformers' forward pass launches three times as many kernels.

R rows, B images, H heads, N image tokens, E head width, D width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from capkit.decoding.cache import PreallocatedCache
from capkit.decoding.fused import add_norm, attend_image, attend_self, can_fuse

KeyValue = tuple[Tensor, Tensor]  # (B H N E) each

_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")  # one formula; transformers computes the first in eight operations


def can_write_one(model: Any, device: torch.device) -> bool:
    """Whether `write_one` computes what this `GPT2Model` does."""
    config = model.config
    usual = config.model_type == "gpt2" and config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx
    return usual and can_fuse(model, device)


def _activation(config: Any, block: Any) -> Callable[[Tensor], Tensor]:
    if config.activation_function in _TANH_GELU:
        return lambda x: nn.functional.gelu(x, approximate="tanh")
    return block.mlp.act


def write_one(
    model: Any,
    embeddings: Float[Tensor, "R D"],
    cache: PreallocatedCache,
    position: int,
    images: Sequence[KeyValue] | None = None,
) -> Float[Tensor, "R D"]:
    """Hidden states at one token behind those of the cache, without dropout.

    `position`: of its embedding; that of its place in the cache, but for conditions in front, which have none.
    `images`: each layer's keys and values of the images, for a model that cross-attends to them.
    """
    x = embeddings + model.wpe.weight[position]
    scale = (model.config.hidden_size // model.config.num_attention_heads) ** -0.5
    change: Tensor | None = None
    for number, block in enumerate(model.h):
        x, normed = add_norm(x, change, block.ln_1)
        attended = attend_self(block.attn.c_attn(normed), cache.preallocated(number), scale)
        change = block.attn.c_proj(attended)
        if images is not None:
            x, normed = add_norm(x, change, block.ln_cross_attn)
            attended = attend_image(block.crossattention.q_attn(normed), *images[number], scale)
            change = block.crossattention.c_proj(attended)
        x, normed = add_norm(x, change, block.ln_2)
        change = block.mlp.c_proj(_activation(model.config, block)(block.mlp.c_fc(normed)))
    return add_norm(x, change, model.ln_f)[1]
