"""One interface to every training strategy: add gradients, update or discard, read whole weights.

`TrainModule` steps through it and does not ask which strategy it has.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from torch import Tensor, nn

from capkit.distributed.collectives import touch_all_parameters, world_size
from capkit.errors import UsageError

Rest = TypeVar("Rest")
Refuses = Callable[[Tensor | None], Tensor]  # a scalar of truth values; the same on all ranks


class StepOutcome(NamedTuple):
    """`grad_norm`: of the whole gradient, before clipping. `skipped`: True if the update was left out.

    Both are scalar tensors, for which nobody has waited.
    """

    grad_norm: Tensor
    skipped: Tensor


@runtime_checkable
class StepStrategy(Protocol):
    """What an optimizer step needs of a strategy. All ranks make the same calls in the same order."""

    @property
    def retries_steps(self) -> bool:
        """Whether the forward and backward passes of a step that ran out of memory may be repeated."""
        ...

    def add_gradient(self, share: Callable[[], tuple[Tensor, Rest]], last: bool) -> Rest:
        """Run one forward and one backward pass; `TrainModule.add_gradient` says what `share` and `last` are."""
        ...

    def step(self, optimizer: Any, update: Callable[[], Any], refuses: Refuses) -> StepOutcome:
        """Clip the gradient, then call `update`, which makes the optimizer step; leave no gradient behind.

        `refuses(norm)` is asked first: if it is True, the gradient is discarded, and weights and optimizer state stay
        unchanged. `norm` is None where the gradient's norm is known only after the update.
        """
        ...

    def whole_weights(self) -> AbstractContextManager[None]:
        """Context in which every rank holds all weights, and may run the model independently of the other ranks."""
        ...


@contextmanager
def leaving_out(optimizer: Any, skipped: Tensor, has_scaler: bool = False) -> Iterator[None]:
    """Context in which the optimizer's step changes nothing if `skipped` is True.

    PyTorch's fused optimizers read that on the device, as they do for a GradScaler. For others the host waits for it;
    also if there is a GradScaler (precision=16-mixed), which sets the flag for itself.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    if has_scaler or not inner.defaults.get("fused"):
        if skipped:
            optimizer.zero_grad()  # sets gradients to None, and the optimizer ignores parameters without a gradient
        yield
        return
    inner.found_inf = skipped.float()
    try:
        yield
    finally:
        del inner.found_inf


def _has_scaler(module: pl.LightningModule) -> bool:
    """Whether a GradScaler scales the module's loss (precision=16-mixed); without a trainer none does."""
    try:
        plugin = module.trainer.precision_plugin
    except RuntimeError:  # not attached to a trainer
        return False
    return getattr(plugin, "scaler", None) is not None


class SingleDevice:
    """One process. `model` is the part of `module` that is trained; its gradients lie in `parameter.grad`."""

    def __init__(self, module: pl.LightningModule, model: nn.Module, clip_norm: float | None) -> None:
        self.module, self.model, self.clip_norm = module, model, clip_norm

    @property
    def retries_steps(self) -> bool:
        return True

    def add_gradient(self, share: Callable[[], tuple[Tensor, Rest]], last: bool) -> Rest:
        rest = self.backward(share, last)
        if last:
            for parameter in self.model.parameters():
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        return rest

    def backward(self, share: Callable[[], tuple[Tensor, Rest]], last: bool) -> Rest:
        loss, rest = share()
        self.module.manual_backward(loss)
        return rest

    def step(self, optimizer: Any, update: Callable[[], Any], refuses: Refuses) -> StepOutcome:
        norm = self._clip()
        skipped = refuses(norm)
        with leaving_out(optimizer, skipped, _has_scaler(self.module)):
            update()
        optimizer.zero_grad()
        return StepOutcome(norm, skipped)

    def _clip(self) -> Tensor:
        """Clip the gradient and return its norm before clipping."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        limit = float("inf") if self.clip_norm is None else self.clip_norm
        return nn.utils.clip_grad_norm_(parameters, limit).detach()

    def whole_weights(self) -> AbstractContextManager[None]:
        return nullcontext()


class DataParallel(SingleDevice):
    """DDP: in the last backward pass of a step, gradients are averaged over ranks."""

    def __init__(
        self, strategy: DDPStrategy, module: pl.LightningModule, model: nn.Module, clip_norm: float | None
    ) -> None:
        super().__init__(module, model, clip_norm)
        self.strategy = strategy

    @property
    def retries_steps(self) -> bool:
        """Not with several processes: the others wait in the reduction of gradients."""
        return world_size() == 1

    def backward(self, share: Callable[[], tuple[Tensor, Rest]], last: bool) -> Rest:
        with nullcontext() if last else self.strategy.block_backward_sync():
            loss, rest = share()
            if last:
                loss = touch_all_parameters(loss, self.module.parameters())
            self.module.manual_backward(loss * world_size())  # turns DDP's mean over ranks into the sum
        return rest


def step_strategy(strategy: Any, module: pl.LightningModule, model: nn.Module, clip_norm: float | None) -> StepStrategy:
    """The interface to a trainer's strategy: the strategy itself where it has it, as `Zero` does.

    Raises UsageError for a strategy under which gradient accumulation has not been verified.
    """
    if isinstance(strategy, StepStrategy):
        return strategy
    if isinstance(strategy, SingleDeviceStrategy):
        return SingleDevice(module, model, clip_norm)
    if isinstance(strategy, DDPStrategy) and not isinstance(strategy, DeepSpeedStrategy):
        return DataParallel(strategy, module, model, clip_norm)
    raise UsageError(
        f"trainer.strategy={type(strategy).__name__} is not supported; "
        "choose trainer=cpu, gpu, ddp, deepspeed_1, deepspeed_2 or deepspeed_3"
    )
