"""Weights in autocast's type for the length of a rollout, where autocast would cast them again at each token."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from capkit.upstream.transformers import Conv1D

HEAD_MULTIPLE = 64  # rows: matrix products over a vocabulary like 50,257 run in slow, unaligned kernels


def is_sharded(parameter: Tensor) -> bool:
    """Whether DeepSpeed's ZeRO-3 owns the parameter: its hooks need the parameter itself."""
    return hasattr(parameter, "ds_id")


def _cast(parameter: nn.Parameter, dtype: torch.dtype, num_rows: int) -> nn.Parameter:
    value = parameter.detach().to(dtype)
    after = num_rows - len(value)
    if after:
        value = torch.cat([value, value.new_zeros((after, *value.shape[1:]))])
    return nn.Parameter(value, requires_grad=False)


@contextmanager
def cast_once(parts: Iterable[nn.Module], head: nn.Module, device: torch.device) -> Iterator[None]:
    """Under autocast, let the linear layers of `parts` and the head hold their weights in autocast's type.

    On a GPU a linear head gets rows of zeros up to a multiple of 64: cut its logits to the vocabulary. The parameters
    themselves are put back on exit. Embeddings and norms, which autocast leaves in float32, are not touched.
    """
    if not torch.is_autocast_enabled(device.type):
        yield
        return
    dtype = torch.get_autocast_dtype(device.type)
    layers = [m for part in (*parts, head) for m in part.modules() if isinstance(m, nn.Linear | Conv1D)]
    held: list[tuple[nn.Module, str, nn.Parameter]] = []
    try:
        for layer in dict.fromkeys(layers):
            pads = layer is head and isinstance(head, nn.Linear) and device.type == "cuda"
            for name, parameter in list(layer.named_parameters(recurse=False)):
                if is_sharded(parameter):
                    continue
                rows = len(parameter)
                rows += -rows % HEAD_MULTIPLE if pads else 0
                held.append((layer, name, parameter))
                setattr(layer, name, _cast(parameter, dtype, rows))
        yield
    finally:
        for module, name, parameter in held:
            setattr(module, name, parameter)
