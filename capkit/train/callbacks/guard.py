"""Skips optimizer steps with an unusable loss or gradient, and ends a run that has too many of them."""

import math
import statistics
import warnings
from collections import deque
from typing import Annotated, Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from capkit.errors import Diverged, UsageError
from capkit.train.callbacks.find import callbacks_of
from capkit.train.callbacks.recorder import Recorder
from capkit.utils.ranges import AtLeastTwo, PositiveInt, Range, check_ranges

ACTIONS = ("warn", "skip", "stop")
TO_SIGMA = 1.4826  # standard deviations per median absolute deviation, for a normal distribution


@check_ranges
class SkipBadSteps(Callback):
    """Skips steps with a NaN or infinite loss or gradient on all ranks; after `max_in_a_row` of them, ends the run.

    A skipped step changes neither weights nor optimizer state. It counts as a step of the run, so that the data
    advances, but not for the learning rate schedule. `train/skipped_steps` counts skipped steps. Losses are those of
    all ranks. A resumed run decides like an uninterrupted one.

    On a GPU the device leaves an update out, and the host learns of it a step later: it warns, counts and ends the run
    then. Only with a `spike_factor` does it wait for each step's loss.

    Args:
        max_in_a_row: consecutive skipped updates that end the run.
        spike_factor: also watch for spikes (null: do not): a loss above the median of the last `num_steps` by more than
            (spike_factor - 1) times the median's magnitude, or times the deviation if that is larger (losses around
            0). For losses above 0 this usually means loss > spike_factor x median.
        on_spike: warn, skip (as above, and counted towards `max_in_a_row`), or stop.
        num_steps: length of the window; nothing is a spike before it is full.
    """

    def __init__(
        self,
        max_in_a_row: PositiveInt = 10,
        spike_factor: Annotated[float | int, Range(above=1)] | None = None,
        on_spike: str = "skip",
        num_steps: AtLeastTwo = 100,
    ) -> None:
        if on_spike not in ACTIONS:
            raise UsageError(f"expected callback.guard.on_spike to be warn, skip or stop; got {on_spike!r}")
        self.max_in_a_row, self.spike_factor, self.on_spike = max_in_a_row, spike_factor, on_spike
        self.skipped_steps = 0
        self.in_a_row = 0
        self.recent = deque[float](maxlen=num_steps)
        self.reason = ""
        self._trainer: pl.Trainer | None = None
        self._module: Any = None
        self._leaves_step_out = False

    @property
    def watches_spikes(self) -> bool:
        return self.spike_factor is not None

    def state_dict(self) -> dict[str, Any]:
        if self._module is not None:
            self._module.settle()
        return {"skipped_steps": self.skipped_steps, "in_a_row": self.in_a_row, "recent": list(self.recent)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped_steps, self.in_a_row = state_dict["skipped_steps"], state_dict["in_a_row"]
        self.recent.extend(state_dict["recent"])

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._trainer, self._module = trainer, pl_module
        pl_module.guard = self  # type: ignore[assignment]

    # -- called by TrainModule

    def refuses(self, step: int, loss: float, norm: float | None) -> bool:
        """Whether to skip the update, given its loss and the gradient's norm if known.

        Raises Diverged at a spike if that ends the run.
        """
        self.reason = _not_finite(loss, norm)
        if not self.reason and self._is_spike(loss):
            self.reason = f"the loss is {loss:.4g}, the median of {len(self.recent)} steps {self._median():.4g}"
            if self.on_spike == "stop":
                raise Diverged(f"step {step}: {self.reason}; callback.guard.on_spike=stop ends the run; {NEXT}")
            if self.on_spike == "warn":
                warnings.warn(f"step {step}: {self.reason}", stacklevel=2)
                return False
        return bool(self.reason)

    def count(self, step: int, loss: float, norm: float | None, skipped: bool, ends_step: bool) -> None:
        """Count an update that was made or skipped. Raises Diverged after too many skipped ones in a row."""
        self._leaves_step_out |= skipped
        if skipped:
            self.reason = _not_finite(loss, norm) or self.reason or "the gradient is not finite"
            self.in_a_row += 1
            self.skipped_steps += ends_step
        else:
            self.in_a_row = 0
            self.recent.append(loss)
        if self.in_a_row >= self.max_in_a_row:
            raise Diverged(
                f"step {step}: {self.in_a_row} updates in a row are unusable, the last because {self.reason}; {NEXT}"
            )
        if ends_step:
            if self._leaves_step_out:
                self._tell(step)
            self._leaves_step_out = False

    def _tell(self, step: int) -> None:
        if self._trainer is None:
            return
        if self._trainer.is_global_zero:
            warnings.warn(f"step {step}: left out, {self.reason}", stacklevel=2)
        for recorder in callbacks_of(self._trainer, Recorder):
            recorder.record(self._trainer, step, {"train/skipped_steps": float(self.skipped_steps)})

    def _median(self) -> float:
        return statistics.median(self.recent)

    def _is_spike(self, loss: float) -> bool:
        if self.spike_factor is None or len(self.recent) < (self.recent.maxlen or 0):
            return False
        median = self._median()
        deviation = TO_SIGMA * statistics.median(abs(value - median) for value in self.recent)
        return loss - median > (self.spike_factor - 1) * max(abs(median), deviation)


def _not_finite(loss: float, norm: float | None) -> str:
    """Which of the two is NaN or infinite, in words; empty: neither."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if norm is not None and not math.isfinite(norm):
        return f"the gradient's norm is {norm}"
    return ""


NEXT = (
    "look at metrics.jsonl before this step; a lower optimizer.lr, a longer warm-up or trainer.precision=32-true may "
    "help; the last checkpoint is intact"
)
