"""What every LightningModule of capkit shares: one optimizer step is one `training_step`."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Protocol, TypeVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from torch import Tensor, nn

from capkit.distributed.collectives import (
    all_reduce_max,
    device_for_collectives,
    rank,
    touch_all_parameters,
    world_size,
)
from capkit.distributed.zero import Zero
from capkit.errors import UsageError
from capkit.fault_tolerance.oom import halve, map_in_chunks, retry_on_oom
from capkit.models.weights import load_trainable_state, trainable_state
from capkit.optim.optimizers import OptimizerFactory
from capkit.optim.schedules import Schedule
from capkit.utils.rng import stable_hash

Rest = TypeVar("Rest")


def _nothing() -> None:
    """The closure of an optimizer step whose gradient is there already; a safe point where nobody waits for one."""


def _never() -> bool:
    return False


class StepGuard(Protocol):
    """Decides which updates are left out: capkit/train/callbacks/guard.py says what its methods do."""

    skipped_steps: int

    def refuses(self, step: int, loss: float, norm: float | None) -> bool: ...

    def count(self, step: int, loss: float, skipped: bool, ends_step: bool) -> None: ...


def running_statistics(model: nn.Module) -> list[Tensor]:
    """What a forward pass changes: the statistics of BatchNorm layers in training."""
    layers = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return [buffer for layer in layers if layer.training for buffer in layer.buffers()]


class TrainModule(pl.LightningModule):
    """The mechanics of an optimizer step: seed, learning rate, gradients, clipping, update, and what is saved.

    The rank's whole share of the step comes in as one batch. `backward_batch`, which a method brings, cuts it into
    micro-batches as its loss allows and leaves in each parameter the gradient of the global batch's loss.

    Dropout and every other global random number of a step are seeded by (seed, step, rank): a resumed run draws what
    the uninterrupted one would have drawn.

    A step or a validation that takes long comes by `safe_point`, all ranks together and with the weights of the last
    finished step: there a run may be ended (capkit/train/callbacks/preemption.py sets both). Once `is_stopping` it will
    be, and what this rank would do before may be left out.
    """

    def __init__(
        self, model: nn.Module, optimizer: OptimizerFactory, schedule: Schedule, micro_batch_size: int | None, seed: int
    ) -> None:
        super().__init__()
        if micro_batch_size is not None and micro_batch_size < 1:
            raise UsageError(f"micro_batch_size must be 1 or more images, or null; got {micro_batch_size}")
        self.automatic_optimization = False
        self.model = model
        self.optimizer_factory = optimizer
        self.schedule = schedule
        self.micro_batch_size = micro_batch_size
        self.eval_batch_size: int | None = None  # images at once in an evaluation, since a batch of it did not fit
        self.seed = seed
        self.guard: StepGuard | None = None  # capkit/train/callbacks/guard.py
        self.on_shrink: Callable[[str, int, str], None] | None = None  # capkit/train/callbacks/oom.py
        self.safe_point: Callable[[], None] = _nothing
        self.is_stopping: Callable[[], bool] = _never

    @abstractmethod
    def backward_batch(self, batch: Any, step: int) -> dict[str, Tensor]:
        """Forward and backward of the rank's share, by `add_gradient`.

        Returns detached numbers to log, "loss" (of all ranks) among them.
        """

    def setup(self, stage: str) -> None:
        """Raises UsageError under a strategy whose accumulation of gradients is not known here."""
        strategy = self.trainer.strategy
        if isinstance(strategy, DeepSpeedStrategy) or not isinstance(strategy, SingleDeviceStrategy | DDPStrategy):
            raise UsageError(
                f"trainer.strategy={type(strategy).__name__} is not supported; "
                "choose trainer=cpu, gpu, ddp, deepspeed_1, deepspeed_2 or deepspeed_3"
            )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer_factory(self.model)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        optimizer = self.begin_step()
        step = self.global_step
        logs = self.in_memory(lambda: self.backward_batch(batch, step), "micro_batch_size", len(batch))
        self.update(optimizer, logs)
        return logs

    def begin_step(self) -> Any:
        """Random numbers and learning rate as they belong to this step; the optimizer."""
        step = self.global_step
        torch.manual_seed(stable_hash(self.seed, "step", step, rank()))
        optimizer: Any = self.optimizers()
        self._set_learning_rate(optimizer, step - (0 if self.guard is None else self.guard.skipped_steps))
        self._statistics = [(buffer, buffer.clone()) for buffer in running_statistics(self.model)]
        return optimizer

    def in_memory(self, work: Callable[[], Rest], name: str, num_images: int) -> Rest:
        """Part of a step, done again from its start with half of the size `name` as often as memory ends in it.

        The size is in images; None stands for `num_images`. Raises RunFailure when a single image does not fit.
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
        """`work` of a batch of an evaluation, in parts since one did not fit into memory; not of a step.

        Each rank cuts its own batches: `work` waits for no other rank, and gives each image what it would alone.
        """
        return map_in_chunks(batch, work, self.eval_batch_size, partial(setattr, self, "eval_batch_size"))

    def add_gradient(self, share: Callable[[], tuple[Tensor, Rest]], last: bool = True) -> Rest:
        """A forward and a backward pass, the same under every strategy.

        `share` gives this rank's share of the global batch's loss, and anything else, which is returned. The gradient
        of the sum of all ranks' shares is added to what the parameters have. `last`: no more follows in this step, so
        that DDP exchanges gradients once. Then each trainable parameter has a gradient: zero where no share uses it.
        """
        # Ranks' gradients are averaged by DDP and by ZeRO; the sum is wanted.
        strategy, scale = self.trainer.strategy, world_size()
        if isinstance(strategy, Zero):
            return strategy.add_gradient(share, scale)
        block = getattr(strategy, "block_backward_sync", nullcontext)
        with nullcontext() if last else block():
            loss, rest = share()
            if last and isinstance(strategy, DDPStrategy):
                loss = touch_all_parameters(loss, self.parameters())
            self.manual_backward(loss * scale)
        if last:
            for parameter in self.model.parameters():
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        return rest

    def update(self, optimizer: Any, logs: dict[str, Tensor], counts: bool = True) -> None:
        """Clips by `optimizer.clip_norm` and steps. `logs` has the loss, and gets the gradient's norm before clipping.

        An update that the guard refuses is left out: weights, running statistics and the optimizer's state stay as they
        are, and `logs` gets "skipped". With `counts=False` it is an update within a step: `global_step` stays.
        """
        strategy = self.trainer.strategy
        norm = None if isinstance(strategy, Zero) else self._clip()
        skipped = self._refuses(logs["loss"], norm)
        if skipped and isinstance(strategy, Zero):
            strategy.discard_gradient = True
        elif skipped:
            optimizer.zero_grad()  # without a gradient the optimizer leaves everything as it is
        if counts:
            optimizer.step()
        else:
            strategy.optimizer_step(optimizer.optimizer, closure=_nothing)
        if isinstance(strategy, Zero):
            norm, skipped = strategy.grad_norm, strategy.skipped
        else:
            optimizer.zero_grad()
        assert norm is not None
        logs["grad_norm"] = norm
        if skipped:
            self._restore_statistics()
            logs["skipped"] = torch.ones((), device=self.device)
        if self.guard is not None:
            self.guard.count(self.global_step, float(logs["loss"]), skipped, counts)

    def _refuses(self, loss: Tensor, norm: Tensor | None) -> bool:
        """What the guard says on any rank."""
        if self.guard is None:
            return False
        refused = self.guard.refuses(self.global_step + 1, float(loss), None if norm is None else float(norm))
        return bool(all_reduce_max(torch.tensor(float(refused), device=device_for_collectives())))

    def _restore_statistics(self) -> None:
        for buffer, value in self._statistics:
            buffer.copy_(value)

    def whole_weights(self) -> AbstractContextManager[None]:
        """Every rank holds all weights for this time: it may run the model as often as it likes, without the others."""
        strategy = self.trainer.strategy
        return strategy.whole_weights() if isinstance(strategy, Zero) else nullcontext()

    def _set_learning_rate(self, optimizer: Any, step: int) -> None:
        factor = self.schedule(step, self.trainer.max_steps)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor

    def _clip(self) -> Tensor:
        """The gradient's norm before clipping."""
        limit = self.optimizer_factory.clip_norm
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        return nn.utils.clip_grad_norm_(parameters, float("inf") if limit is None else limit).detach()

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Without frozen parameters: they are rebuilt from the config, and their fingerprint is verified."""
        return {f"model.{name}": value for name, value in trainable_state(self.model).items()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Raises UsageError when the weights are not those of this model: names or shapes differ."""
        load_trainable_state(self.model, {name.removeprefix("model."): value for name, value in state_dict.items()})
