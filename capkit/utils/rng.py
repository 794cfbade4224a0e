"""Random numbers per example: a counter-based hash of (seed, keys ..., position), never of rank or worker.

Equal in numpy and torch, on CPU and GPU, so that an example's draw does not depend on process, batch or device.
"""

from typing import overload

import numpy as np
import torch
from torch import Tensor

from capkit.utils.seeds import generator, stable_hash

__all__ = ["generator", "stable_hash", "uniform"]

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # masked, since torch's int64 shifts copy the sign


def _mix_torch(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shift_right(x, 27)) * _signed(_MIX_2)
    return x ^ _shift_right(x, 31)


def _mix_numpy(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(_MIX_1)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(_MIX_2)
        return x ^ (x >> np.uint64(31))


@overload
def uniform(ids: Tensor, position: int | Tensor) -> Tensor: ...
@overload
def uniform(ids: np.ndarray, position: int) -> np.ndarray: ...
def uniform(ids: Tensor | np.ndarray, position: int | Tensor) -> Tensor | np.ndarray:
    """One float64 in [0, 1) for each id at a position (splitmix64 of id + position; 53 random bits).

    Positions in a tensor are broadcast against the ids.
    """
    if isinstance(ids, Tensor):
        if isinstance(position, Tensor):
            step: int | Tensor = (position + 1) * _signed(_GOLDEN)
        else:
            step = _signed(_GOLDEN * (position + 1))
        bits = _mix_torch(_mix_torch(ids.to(torch.int64)) + step)
        return _shift_right(bits, 11).to(torch.float64) * 2.0**-53
    assert isinstance(position, int)
    with np.errstate(over="ignore"):
        mixed = _mix_numpy(ids.astype(np.uint64)) + np.uint64((_GOLDEN * (position + 1)) & _MASK)
    return (_mix_numpy(mixed) >> np.uint64(11)).astype(np.float64) * 2.0**-53
