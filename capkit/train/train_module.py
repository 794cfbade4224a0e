"""Base class of capkit's LightningModules: each `training_step` makes exactly one optimizer step."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol, TypeVar

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from capkit.distributed.collectives import all_reduce_max, rank
from capkit.distributed.strategies import StepStrategy, step_strategy
from capkit.errors import UsageError
from capkit.fault_tolerance.oom import halve, map_in_chunks, retry_on_oom
from capkit.models.weights import load_trainable_state, trainable_state
from capkit.optim.optimizers import OptimizerFactory
from capkit.optim.schedules import Schedule
from capkit.utils.later import Later
from capkit.utils.rng import stable_hash

Rest = TypeVar("Rest")


def _nothing() -> None:
    """No-op: the closure of an optimizer step whose gradient exists already, and the default `safe_point`."""


def _unmeasured(phase: str | None) -> None:
    """Nobody wants to know which phase of a step begins: the default `enter_phase`."""


def _never() -> bool:
    return False


class StepGuard(Protocol):
    """Decides which updates to skip; see SkipBadSteps in capkit/train/callbacks/guard.py."""

    skipped_steps: int
    watches_spikes: bool

    def refuses(self, step: int, loss: float, norm: float | None) -> bool: ...

    def count(self, step: int, loss: float, norm: float, skipped: bool, ends_step: bool) -> None: ...


def running_statistics(model: nn.Module) -> list[Tensor]:
    """Buffers that a forward pass changes: the running statistics of BatchNorm layers in training mode."""
    layers = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return [buffer for layer in layers if layer.training for buffer in layer.buffers()]


class TrainModule(pl.LightningModule):
    """One optimizer step: seeding, gradients, learning rate, clipping, update; and what a checkpoint holds.

    `training_step` receives the rank's whole share of the global batch. A subclass implements `backward_batch`, which
    cuts it into micro-batches as its loss allows and accumulates the gradient of the global batch's loss.

    Dropout and all other global random numbers are seeded by (seed, step, rank), so that a resumed run draws the same
    numbers as an uninterrupted one.

    Long steps and validations call `safe_point` on all ranks at the same place, with the weights of the last finished
    step; the run may be stopped there. Once `is_stopping()` is true it will be, and work before the next safe point may
    be skipped. capkit/train/callbacks/preemption.py sets both.
    """

    def __init__(
        self, model: nn.Module, optimizer: OptimizerFactory, schedule: Schedule, micro_batch_size: int | None, seed: int
    ) -> None:
        super().__init__()
        if micro_batch_size is not None and micro_batch_size < 1:
            raise UsageError(f"expected micro_batch_size to be 1 or more images, or null; got {micro_batch_size}")
        self.automatic_optimization = False
        self.model = model
        self.optimizer_factory = optimizer
        self.schedule = schedule
        self.micro_batch_size = micro_batch_size
        self.eval_batch_size: int | None = None  # images per chunk in evaluation, set after one ran out of memory
        self.seed = seed
        self.guard: StepGuard | None = None  # capkit/train/callbacks/guard.py
        self.on_shrink: Callable[[str, int, str], None] | None = None  # capkit/train/callbacks/oom.py
        self._told_later: list[tuple[Later, Callable[[list[float]], None]]] = []
        self._num_known = 0  # of these, put off before the last update ended: the host need not wait for them
        self.enter_phase: Callable[[str | None], None] = _unmeasured  # capkit/train/callbacks/throughput.py
        self.safe_point: Callable[[], None] = _nothing
        self.is_stopping: Callable[[], bool] = _never

    @abstractmethod
    def backward_batch(self, batch: Any, step: int) -> dict[str, Tensor]:
        """Run forward and backward passes over the rank's share, each through `add_gradient`.

        Returns detached numbers to log; among them "loss", the loss of the global batch.
        """

    def num_tokens(self, batch: Any, logs: Mapping[str, Tensor]) -> Tensor | float:
        """Tokens that this rank learned from in a step, given what the step logged; 0 where there are none."""
        return 0.0

    def setup(self, stage: str) -> None:
        """Raises UsageError for a strategy under which gradient accumulation has not been verified."""
        strategy, clip_norm = self.trainer.strategy, self.optimizer_factory.clip_norm
        self.strategy: StepStrategy = step_strategy(strategy, self, self.model, clip_norm)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer_factory(self.model)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        optimizer = self.begin_step()
        step = self.global_step
        logs = self.in_memory(lambda: self.backward_batch(batch, step), "micro_batch_size", len(batch))
        self.update(optimizer, logs)
        return logs

    def begin_step(self) -> Any:
        """Seed the random number generators, and return the optimizer."""
        torch.manual_seed(stable_hash(self.seed, "step", self.global_step, rank()))
        optimizer: Any = self.optimizers()
        self._statistics = [(buffer, buffer.clone()) for buffer in running_statistics(self.model)]
        return optimizer

    def in_memory(self, work: Callable[[], Rest], name: str, num_images: int) -> Rest:
        """Return `work()`, a part of a step. If it runs out of memory, halve the size named `name` and start it again.

        The size is in images; None stands for `num_images`. Random numbers, gradients and running statistics are
        restored before each retry. Raises RunFailure if a single image does not fit.
        """
        if self.on_shrink is None:
            return work()
        random = torch.random.get_rng_state(), torch.cuda.get_rng_state() if self.device.type == "cuda" else None

        def shrink(why: str) -> None:
            self._shrink(name, num_images, why)
            torch.random.set_rng_state(random[0])
            if random[1] is not None:
                torch.cuda.set_rng_state(random[1])

        return retry_on_oom(work, shrink)

    def _shrink(self, name: str, num_images: int, why: str) -> None:
        assert self.on_shrink is not None
        advice = "choose a smaller model, a smaller data.max_length, or trainer=deepspeed_2 or deepspeed_3"
        size = halve(min(getattr(self, name) or num_images, num_images), why, f"{name} is 1 already; {advice}")
        self.on_shrink(name, size, why)
        setattr(self, name, size)
        self.model.zero_grad(set_to_none=True)
        self._restore_statistics()

    def map_in_chunks(self, batch: Any, work: Callable[[Any], Rest]) -> list[Rest]:
        """Apply `work` to an evaluation batch, in chunks once a whole batch has run out of memory. Not for training.

        Ranks chunk independently: `work` must not communicate, and must treat images independently of each other.
        """
        return map_in_chunks(batch, work, self.eval_batch_size, partial(setattr, self, "eval_batch_size"))

    def add_gradient(self, share: Callable[[], tuple[Tensor, Rest]], last: bool = True) -> Rest:
        """Run one forward and one backward pass, under any strategy.

        `share()` returns (this rank's share of the global batch's loss, anything else); the second value is returned.
        The gradient of the sum of all ranks' shares is added to the parameters' gradients. Pass `last=True` in the last
        call of a step only: DDP reduces gradients then. Afterwards every trainable parameter has a gradient, zero if no
        share used it.
        """
        return self.strategy.add_gradient(share, last)

    def update(self, optimizer: Any, logs: dict[str, Tensor], counts: bool = True) -> None:
        """Set the learning rate, clip the gradient to `optimizer.clip_norm` and step.

        Adds "grad_norm", the norm before clipping, and "skipped" to `logs`. If the guard refuses the update ("skipped"
        is 1), weights, running statistics and optimizer state stay unchanged. On a GPU the device decides that, and the
        guard counts it a step later. `counts=False` marks an update within a step, which does not advance
        `global_step`.
        """
        self._settle(self._num_known)
        self._set_learning_rate(optimizer, self.global_step - (0 if self.guard is None else self.guard.skipped_steps))
        update = optimizer.step
        if not counts:
            update = partial(self.trainer.strategy.optimizer_step, optimizer.optimizer, closure=_nothing)
        norm, skipped = self.strategy.step(optimizer, update, partial(self._refuses, logs["loss"]))
        self._restore_statistics(where=skipped)
        logs["grad_norm"], logs["skipped"] = norm, skipped.float()
        if self.guard is not None:
            count = partial(self._count, self.global_step, counts)
            self.tell_later([logs["loss"], norm, logs["skipped"]], count)
        self._num_known = len(self._told_later)

    def _refuses(self, loss: Tensor, norm: Tensor | None) -> Tensor:
        """Whether the guard refuses the update: the same answer on every rank, since loss and norm are.

        Asked of the host where it watches for spikes, and under ZeRO, where the norm is not known yet.
        """
        if self.guard is None:
            return torch.zeros((), dtype=torch.bool, device=self.device)
        if norm is None or self.guard.watches_spikes or self.device.type == "cpu":
            refused = self.guard.refuses(self.global_step + 1, float(loss), None if norm is None else float(norm))
            flag = torch.full((), float(refused), device=self.device)
        else:
            flag = (~(loss.isfinite() & norm.isfinite())).float()
        return all_reduce_max(flag) > 0

    def _count(self, step: int, counts: bool, numbers: list[float]) -> None:
        assert self.guard is not None
        loss, norm, skipped = numbers
        self.guard.count(step, loss, norm, bool(skipped), counts)

    def tell_later(self, numbers: Sequence[Tensor], told: Callable[[list[float]], None]) -> None:
        """Call `told` with the numbers once they are on the host: now on a CPU, else in the update after their own.

        After the last step and before a checkpoint nothing is left to be told.
        """
        self._told_later.append((Later(torch.stack([number.detach().double() for number in numbers])), told))
        if not any(number.is_cuda for number in numbers):
            self.settle()

    def settle(self) -> None:
        """Do what was put off until numbers are on the host."""
        self._settle(len(self._told_later))

    def _settle(self, count: int) -> None:
        """The first `count` of them. Numbers of the gradient that the device works on are left: to wait for them would
        leave it idle while the update is launched.
        """
        ready, self._told_later = self._told_later[:count], self._told_later[count:]
        self._num_known = max(0, self._num_known - count)
        for value, told in ready:
            told(value.read().tolist())

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.global_step >= self.trainer.max_steps:
            self.settle()

    def _restore_statistics(self, where: Tensor | None = None) -> None:
        """Undo what the step's forward passes did to running statistics, if `where` is True (None: in any case)."""
        for buffer, value in self._statistics:
            buffer.copy_(value if where is None else torch.where(where, value, buffer))

    def whole_weights(self) -> AbstractContextManager[None]:
        """Context in which every rank holds all weights, and may run the model independently of the other ranks."""
        return self.strategy.whole_weights()

    def _set_learning_rate(self, optimizer: Any, step: int) -> None:
        factor = self.schedule(step, self.trainer.max_steps)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Trainable weights only. Frozen ones are rebuilt from the config, and verified by their fingerprint."""
        return {f"model.{name}": value for name, value in trainable_state(self.model).items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Raises UsageError if the names or shapes of the weights do not match this model."""
        load_trainable_state(self.model, {name.removeprefix("model."): value for name, value in state_dict.items()})
