"""Dataclasses that hold tensors, moved as one."""

import dataclasses
from typing import Any

import torch
from torch import Tensor


class TensorFields:
    """Moves all tensors of a dataclass at once; Lightning calls `to` and `pin_memory` on batches."""

    def _map_tensors(self, function: Any) -> Any:
        changes: dict[str, Any] = {}
        for spec in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, spec.name)
            if isinstance(value, Tensor):
                changes[spec.name] = function(value)
            elif isinstance(value, dict):
                changes[spec.name] = {k: _mapped(v, function) for k, v in value.items()}
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Any:
        return self._map_tensors(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Any:
        return self._map_tensors(lambda t: t.pin_memory())


def _mapped(value: Any, function: Any) -> Any:
    if isinstance(value, TensorFields):
        return value._map_tensors(function)
    return function(value) if isinstance(value, Tensor) else value
