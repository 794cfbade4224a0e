"""Monitors the captions written during training; warns, stops or restores weights when the captioner degenerates."""

import math
import warnings
from collections import deque
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from capkit.checkpoint.loading import read_checkpoint
from capkit.errors import UsageError
from capkit.run.selection import Bound
from capkit.train.callbacks.checkpoints import Checkpoints
from capkit.train.callbacks.find import callbacks_of
from capkit.utils.later import Later
from capkit.utils.ranges import PositiveInt, check_ranges

ACTIONS = ("warn", "stop", "restore")


@check_ranges
class Degeneration(Callback):
    """Compares means of logged numbers over the last `num_steps` optimizer steps with `limits`.

    Nothing happens before `num_steps` steps, so that a single odd batch has no effect. NaN values are left out; a mean
    over NaN only violates its limit. Numbers are those of all ranks, so that all ranks decide alike. A resumed run
    decides like an uninterrupted one. A number that is still on a GPU is looked at a step later, so that nobody waits
    for it. Meaning of the monitors: docs/monitors.md.

    Args:
        limits: `<= NUMBER` or `>= NUMBER` by logged name: {rl/repetition: "<= 0.3"}; null removes a limit.
        on_degeneration: what to do when a mean leaves its limit.
            warn: print a warning, and again only after the mean has been back inside.
            stop: also make this step the last; it is saved and validated, and the task evaluates and reports.
            restore: also make this step the last and validate it; then restore the weights of the newest checkpoint
            (the start counts) saved while all means, and that step's own numbers, were inside. Needs
            callback=checkpoints.
        num_steps: length of the window.
    """

    def __init__(
        self, limits: Mapping[str, str | None], on_degeneration: str = "warn", num_steps: PositiveInt = 10
    ) -> None:
        if on_degeneration not in ACTIONS:
            raise UsageError(f"expected on_degeneration to be warn, stop or restore; got {on_degeneration!r}")
        self.on_degeneration, self.num_steps = on_degeneration, num_steps
        self.limits = {name: _bound(name, text) for name, text in limits.items() if text is not None}
        self.recent = {name: deque[float](maxlen=num_steps) for name in self.limits}
        self.outside: list[str] = []
        self.healthy_step = self._healthy_before = 0
        self._checkpoints: Checkpoints | None = None
        self._restores = False
        self._late: dict[str, Later] = {}  # numbers of the last step that were on a GPU

    @property
    def restored_step(self) -> int | None:
        """The step whose weights were restored; None if none were."""
        return self.healthy_step if self._restores else None

    def state_dict(self) -> dict[str, Any]:
        recent = {name: list(values) for name, values in self.recent.items()}
        late = {name: float(value.read()) for name, value in self._late.items()}
        return {"recent": recent, "outside": self.outside, "healthy_step": self.healthy_step, "late": late}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.outside, self.healthy_step = list(state_dict["outside"]), state_dict["healthy_step"]
        self._late = {name: Later(torch.tensor(value)) for name, value in state_dict.get("late", {}).items()}
        for name, values in self.recent.items():
            values.extend(state_dict["recent"].get(name, []))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Move in front of the checkpoint callback, so that a checkpoint includes what was seen of its step."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        self._checkpoints = next(iter(callbacks_of(trainer, Checkpoints)), None)
        if self._checkpoints is not None and callbacks.index(self._checkpoints) < callbacks.index(self):
            callbacks.remove(self)
            callbacks.insert(callbacks.index(self._checkpoints), self)
        if self._checkpoints is None and self.on_degeneration == "restore":
            raise UsageError("callback.degeneration.on_degeneration=restore needs callback=checkpoints; add it")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the start if restore may need it. A run that was stopped for degeneration stays stopped."""
        trainer.should_stop = trainer.should_stop or (self.on_degeneration == "stop" and bool(self.outside))
        if self._checkpoints is not None and self.on_degeneration == "restore":
            self._keep_healthy(self._checkpoints)
            if trainer.global_step == 0 and not self._checkpoints.save(trainer):
                raise UsageError(f"on_degeneration=restore needs the start saved, but {self._checkpoints.failure}")

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """If the last healthy step could not be saved, fall back to the one before."""
        if self._checkpoints is not None and self._checkpoints.failed_step == self.healthy_step > 0:
            self.healthy_step = self._healthy_before
            self._keep_healthy(self._checkpoints)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        values = self._values(outputs)
        for name, value in values.items():
            self.recent[name].append(value)
        before, self.outside = self.outside, [name for name in self.limits if not self._mean_is_inside(name)]
        left = [name for name in self.outside if name not in before]
        if left:
            self._act(trainer, left)
        elif not self.outside and all(self.limits[name].holds(value) for name, value in values.items()):
            self._note_health(trainer)

    def _values(self, outputs: Mapping[str, Any]) -> dict[str, float]:
        """The watched numbers of a step, of the one before where they are on a GPU.

        Names without a section belong to the section train.
        """
        for name in self.limits:
            if name.removeprefix("train/") not in outputs:
                logged = sorted(known if "/" in known else f"train/{known}" for known in outputs)
                raise UsageError(
                    f"callback.degeneration.limits: {name} is not logged; logged: {', '.join(logged)}; to remove a "
                    f"limit, give callback.degeneration.limits={{{name}: null}}"
                )
        values = {}
        for name in self.limits:
            number = outputs[name.removeprefix("train/")]
            seen: Any = number
            if isinstance(number, torch.Tensor) and number.is_cuda:
                seen, self._late[name] = self._late.get(name), Later(number)
                seen = None if seen is None else seen.read()
            if seen is not None:
                values[name] = float(seen)
        return values

    def _mean(self, name: str) -> float:
        numbers = [value for value in self.recent[name] if not math.isnan(value)]
        return sum(numbers) / len(numbers) if numbers else math.nan

    def _mean_is_inside(self, name: str) -> bool:
        return len(self.recent[name]) < self.num_steps or self.limits[name].holds(self._mean(name))

    def _note_health(self, trainer: pl.Trainer) -> None:
        """If this step is saved, make its checkpoint the one to restore, kept beyond others."""
        if self._checkpoints is not None and self._checkpoints.is_due(trainer):
            self._healthy_before, self.healthy_step = self.healthy_step, trainer.global_step
            self._keep_healthy(self._checkpoints)

    def _keep_healthy(self, checkpoints: Checkpoints) -> None:
        if self.on_degeneration == "restore":
            checkpoints.kept_step = self.healthy_step

    def _act(self, trainer: pl.Trainer, left: list[str]) -> None:
        consequence = {
            "warn": "",
            "stop": "; training ends",
            "restore": f"; training ends, and the weights of step {self.healthy_step} are restored",
        }[self.on_degeneration]
        if trainer.is_global_zero:
            found = ", ".join(f"{name} is {self._mean(name):.4g}, its limit {self.limits[name]}" for name in left)
            warnings.warn(
                f"step {trainer.global_step}: the captioner degenerates: {found} (means of {self.num_steps} steps)"
                f"{consequence}; see docs/monitors.md",
                stacklevel=2,
            )
        trainer.should_stop = trainer.should_stop or self.on_degeneration != "warn"
        if self.on_degeneration == "restore":
            assert self._checkpoints is not None
            self._checkpoints.is_closed = self._restores = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore weights at the end of fit, when a sharding strategy has gathered them again."""
        if self._restores:
            assert self._checkpoints is not None
            checkpoint = read_checkpoint(self._checkpoints.path(self.healthy_step))
            pl_module.load_state_dict(checkpoint["state_dict"])


def _bound(name: str, text: str) -> Bound:
    bound = Bound.parse(str(text))  # in a config it may be a bare number
    if bound is None or bound.of_initial:
        raise UsageError(f'callback.degeneration.limits: expected "<= NUMBER" or ">= NUMBER", got {text!r} for {name}')
    return bound
