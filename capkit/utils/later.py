"""Numbers on their way from a device to the host."""

import torch
from torch import Tensor


class Later:
    """A copy of a tensor on the host, for which nobody waits until it is read.

    The copy begins once the device has computed the tensor. Read it a step later: it is there by then.
    """

    def __init__(self, value: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._value = value.detach()
        if value.is_cuda:
            # Only pinned memory can be copied to without waiting.
            self._value = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
            self._value.copy_(value.detach(), non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def is_there(self) -> bool:
        return self._event is None or self._event.query()

    def read(self) -> Tensor:
        """The value, on the host. Waits until the copy is done, but not for what the device was given after it."""
        if self._event is not None:
            self._event.synchronize()
        return self._value
