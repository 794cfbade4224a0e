"""The reference policy of RL: the policy before fine-tuning, from which KL is measured."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from capkit.decoding.generate import evaluating
from capkit.models.tuning.lora import adapters_off, only_adapters_train


class ReferencePolicy:
    """A frozen copy of the policy or, if only adapters are trained, the policy with its adapters switched off.

    Deliberately not an nn.Module: the copy must not appear in a state dict, an optimizer or a DDP wrapper.
    """

    def __init__(self, policy: nn.Module) -> None:
        self._policy = policy
        self.frozen: nn.Module | None = None

    def keep(self) -> None:
        """Store the current policy. Nothing is copied if only adapters are trained."""
        if not only_adapters_train(self._policy):
            self.frozen = copy.deepcopy(self._policy).eval().requires_grad_(False)

    def to(self, device: torch.device) -> None:
        if self.frozen is not None:
            self.frozen.to(device)

    @contextmanager
    def model(self) -> Iterator[Any]:
        """The stored policy, in eval mode."""
        if self.frozen is not None:
            yield self.frozen
            return
        with adapters_off(self._policy), evaluating(self._policy):
            yield self._policy
