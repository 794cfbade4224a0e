"""The policy that a run by rewards started from: what KL is measured against."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from capkit.decoding.generate import evaluating
from capkit.models.tuning.lora import adapters_off, only_adapters_train


class ReferencePolicy:
    """A frozen copy of the policy or, where adapters alone train, the policy with its adapters off.

    It is no nn.Module: the copy must reach no state dict, optimizer or wrapper.
    """

    def __init__(self, policy: nn.Module) -> None:
        self._policy = policy
        self.frozen: nn.Module | None = None

    def keep(self) -> None:
        """Remembers the policy as it is now."""
        if not only_adapters_train(self._policy):
            self.frozen = copy.deepcopy(self._policy).eval().requires_grad_(False)

    def to(self, device: torch.device) -> None:
        if self.frozen is not None:
            self.frozen.to(device)

    @contextmanager
    def model(self) -> Iterator[Any]:
        """The policy as it was, in eval mode."""
        if self.frozen is not None:
            yield self.frozen
            return
        with adapters_off(self._policy), evaluating(self._policy):
            yield self._policy
