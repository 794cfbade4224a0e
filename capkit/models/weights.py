"""Checkpoints hold trained weights only. Frozen weights are loaded from their source again and verified."""

import hashlib
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from capkit.errors import UsageError

_CHUNK_BYTES = 2**26


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without frozen parameters under any of their names; buffers are kept."""
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def load_trainable_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a `trainable_state`. Raises UsageError naming weights that are missing, unknown or of another shape."""
    wanted = trainable_state(model)
    reshaped = [
        f"{name} {tuple(state[name].shape)} for {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    problems = [
        f"{kind}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"
        for kind, names in (
            ("missing", [name for name in wanted if name not in state]),
            ("unknown", [name for name in state if name not in wanted]),
            ("of another shape", reshaped),
        )
        if names
    ]
    if problems:
        raise UsageError(
            f"the checkpoint does not fit this model ({'; '.join(problems)}); build the model with its own config"
        )
    model.load_state_dict(dict(state), strict=False)


def frozen_fingerprint(model: nn.Module) -> int:
    """Checksum of the frozen parameters, which checkpoints do not hold; 0 if nothing is frozen."""
    checksum = 0
    for _, parameter in sorted(model.named_parameters()):
        if not parameter.requires_grad:
            values = parameter.detach().cpu().contiguous().view(-1).view(torch.uint8)
            checksum = zlib.crc32(values.numpy().tobytes(), checksum)
    return checksum


def weights_fingerprint(model: nn.Module) -> str:
    """Hash of the state dict: names, dtypes, shapes and values of parameters and buffers.

    Equal on every device; another precision gives another fingerprint, since it gives other outputs. Hashes chunks of
    64 MiB at about 1.4 GB/s on one core. Does not cover what is not a weight (number of heads, activation, a disabled
    adapter): combine it with the config.
    """
    state = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        values = value.detach()
        state.update(f"{name.replace('_orig_mod.', '')} {values.dtype} {tuple(values.shape)}\n".encode())
        flat = values.contiguous().reshape(-1).view(torch.uint8)
        for piece in flat.split(_CHUNK_BYTES):
            state.update(piece.cpu().numpy())
    return state.hexdigest()[:32]
