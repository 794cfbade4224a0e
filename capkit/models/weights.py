"""What of a model is saved: what was trained. Frozen weights come from their source again, and are verified."""

import hashlib
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from capkit.errors import UsageError

_CHUNK_BYTES = 2**26


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without frozen parameters, under any of their names (buffers stay)."""
    frozen = {name for name, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def load_trainable_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """The reverse of `trainable_state`. Raises UsageError with the names that are missing, unknown or misshapen."""
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
    """A checksum of the frozen parameters, which checkpoints do not hold; 0 when nothing is frozen."""
    checksum = 0
    for _, parameter in sorted(model.named_parameters()):
        if not parameter.requires_grad:
            values = parameter.detach().cpu().contiguous().view(-1).view(torch.uint8)
            checksum = zlib.crc32(values.numpy().tobytes(), checksum)
    return checksum


def weights_fingerprint(model: nn.Module) -> str:
    """A hash of all parameters and buffers that the state dict holds: names, types, shapes and values.

    The same on every device; another precision is another fingerprint, since it gives other outputs. Weights pass in
    pieces of 64 MiB, about 1.4 GB/s on one core. What is not a weight (heads, activation, an adapter switched off) is
    not seen: put the config beside it.
    """
    state = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        values = value.detach()
        state.update(f"{name.replace('_orig_mod.', '')} {values.dtype} {tuple(values.shape)}\n".encode())
        flat = values.contiguous().reshape(-1).view(torch.uint8)
        for piece in flat.split(_CHUNK_BYTES):
            state.update(piece.cpu().numpy())
    return state.hexdigest()[:32]
