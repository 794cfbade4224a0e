"""Checkpoints at regular steps, and the best one: when to save, which to keep, and what to do if saving fails."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from capkit.checkpoint.files import (
    CheckpointNotSavedError,
    check_integrity,
    is_own,
    load_state,
    remove_checkpoint,
    saved_step,
)
from capkit.checkpoint.lightning_io import use_folders
from capkit.checkpoint.run_checkpoints import checkpoints_in, free_slot, point_best_to, step_of
from capkit.distributed.collectives import broadcast_object
from capkit.errors import ServerFailed, UsageError
from capkit.run.selection import Selection
from capkit.utils.ranges import PositiveFloat, PositiveInt, check_ranges

LOOK_S = 10.0  # time between two checks of rank 0's clock
FAILED = "checkpoint/failed"  # metric: number of failed saves so far, logged at each failure


@dataclass(frozen=True)
class Look:
    """The last check of rank 0's clock: after `step` steps, at `seconds`; and the step at which to check again.

    Checks are about LOOK_S apart at the pace of the steps since the last one, with at most twice as many steps between.
    """

    step: int = 0
    seconds: float = 0.0
    next_step: int = 0

    def after(self, step: int, seconds: float) -> "Look":
        """The check made after `step` steps, at `seconds`."""
        steps, took = max(1, step - self.step), max(seconds - self.seconds, 1e-9)
        return Look(step, seconds, step + max(1, min(2 * steps, int(steps * LOOK_S / took))))


@check_ranges
class Checkpoints(Callback):
    """Saves `step-00000123.ckpt` every `every_steps` optimizer steps and after the last, and the best one.

    A checkpoint is a folder that appears only when complete (capkit/checkpoint/files.py). If one cannot be saved (disk
    full, no permission), all ranks warn and continue: older ones stay intact, and the next due step tries again.

    The best checkpoint at a validation is also kept, as `best.ckpt`, chosen by either `monitor` and `mode` or `select`.
    If a task validates before training, the start is a candidate too. File names contain no "=", so that they can be
    typed in overrides.

    Args:
        every_steps: optimizer steps between checkpoints.
        every_minutes: also save at the first step that ends this long after the last save, by rank 0's clock; this
            bounds the time that a kill costs, however slow steps are. null: by steps alone.
        keep_last: number of newest checkpoints to keep.
        keep_every_steps: keep checkpoints at multiples of this step forever.
        monitor: logged number that chooses the best checkpoint, such as "val/cider".
        mode: max or min of `monitor`.
        select: expression that chooses the best and may limit other metrics, as in "max clip_score s.t. cider >= 0.9 *
            initial" (capkit/run/selection.py; names without "val/").
    """

    def __init__(
        self,
        every_steps: PositiveInt = 1000,
        every_minutes: PositiveFloat | None = 10,
        keep_last: PositiveInt = 2,
        keep_every_steps: PositiveInt | None = None,
        monitor: str | None = None,
        mode: str = "max",
        select: str | None = None,
    ) -> None:
        if keep_every_steps is not None and keep_every_steps % every_steps:
            raise UsageError(
                f"expected keep_every_steps to be a multiple of every_steps={every_steps}, or null; got "
                f"{keep_every_steps}"
            )
        if mode not in ("max", "min"):
            raise UsageError(f"expected mode to be max or min; got {mode!r}")
        if select is not None and (monitor is not None or mode != "max"):
            raise UsageError(
                f"expected either callback.checkpoints.select, or monitor and mode; got {select=}, {monitor=}, "
                f"{mode=}; give one"
            )
        self.every_steps, self.keep_last, self.keep_every_steps = every_steps, keep_last, keep_every_steps
        self.every_minutes = every_minutes
        self.monitor, self.select = monitor, select
        self.selection = None if monitor is None else Selection(mode, monitor)
        if select is not None:
            self.selection = Selection.parse(select)
        self.folder = Path("checkpoints")
        self.best: float | None = None
        self.initial: dict[str, float] = {}
        self.kept_step: int | None = None  # the checkpoint of this step is kept beyond `keep_last`
        self.is_closed = False  # no more checkpoints: what is trained from now on is discarded
        self.failure: str | None = None  # why the last save failed; None if it succeeded
        self.failed_step: int | None = None
        self.saved_step: int | None = None
        self._failures = 0
        self._tried_at = 0.0  # time of the last attempt to save, or of the start
        self._look = Look()
        self._record: Callable[[int, dict[str, float]], None] | None = None
        self._start_is_best = False
        self._broken: list[str] = []

    def attach(self, folder: Path, record: Callable[[int, dict[str, float]], None] | None = None) -> None:
        """Set the folder to save to, and a function that records numbers of a step."""
        self.folder, self._record = folder, record

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        use_folders(trainer)

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.ckpt"

    @property
    def best_path(self) -> Path | None:
        """The checkpoint chosen by `select`; None without `select`, or if no validation satisfied its limits."""
        return None if self.select is None else self.kept_best

    @property
    def kept_best(self) -> Path | None:
        """The best checkpoint so far, chosen by `select` or by `monitor`; None if there is none."""
        return None if self.best is None else self._best

    @property
    def _best(self) -> Path:
        return self.folder / "best.ckpt"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "initial": self.initial, "chosen_by": self._chosen_by}

    @property
    def _chosen_by(self) -> list[str | None]:
        return [self.monitor, None if self.selection is None else self.selection.mode, self.select]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best so far, unless it was chosen by another metric or other limits."""
        if state_dict.get("chosen_by", self._chosen_by) != self._chosen_by:
            return
        self.best, self.initial = state_dict["best"], state_dict.get("initial", {})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.saved_step = trainer.global_step
        self._tried_at = time.monotonic()
        self._look = Look(trainer.global_step, self._tried_at)
        if self._start_is_best:
            self._save_best(trainer)
            self._start_is_best = False
        elif trainer.global_step > 0 and self.selection is not None:
            self._recall_best(trainer)

    def _recall_best(self, trainer: pl.Trainer) -> None:
        """After a run died between a validation and the next checkpoint, take the best so far from best.ckpt.

        A best.ckpt of a later step than the resumed one is ignored: its validation will be repeated.
        """
        found: dict[str, Any] | None = None
        if trainer.is_global_zero and self._best.exists():
            if why := check_integrity(self._best):
                warnings.warn(f"{self._best} is damaged, the next validation replaces it: {why}", stacklevel=2)
                found = {"best": None, "initial": self.initial}
            elif saved_step(self._best) <= trainer.global_step:
                found = load_state(self._best)["callbacks"][self.state_key]
        found = broadcast_object(found)
        if found is not None:
            self.load_state_dict(found)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        is_due, is_late = self.is_due(trainer), self._is_late(trainer)  # on all ranks: `_is_late` is a collective
        if is_due or (is_late and not self.is_closed):
            self.save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save the last finished step where what it asks is away, which all ranks know of at the same place."""
        if isinstance(exception, ServerFailed) and not self.is_closed and trainer.global_step > (self.saved_step or 0):
            self.save(trainer)

    def _is_late(self, trainer: pl.Trainer) -> bool:
        """Whether the last save is `every_minutes` ago; the same on all ranks.

        Rank 0's clock decides. It is not broadcast at each step, since all ranks would wait for it: see `Look`.
        """
        if self.every_minutes is None or trainer.global_step < self._look.next_step:
            return False
        now = time.monotonic()
        is_late = now - self._tried_at >= 60 * self.every_minutes
        is_late, self._look = broadcast_object((is_late, self._look.after(trainer.global_step, now)))
        return is_late

    def is_due(self, trainer: pl.Trainer) -> bool:
        """Whether the last finished step is to be saved because of its number."""
        step = trainer.global_step
        is_last = step >= trainer.max_steps or trainer.should_stop
        return not self.is_closed and (is_last or step % self.every_steps == 0)

    def save(self, trainer: pl.Trainer) -> bool:
        """Save the last finished step; returns whether that succeeded. A collective: all ranks get the same answer."""
        self._tried_at = time.monotonic()
        self.failure = self._save(trainer, self.path(trainer.global_step))
        self.failed_step = trainer.global_step if self.failure else None
        self.saved_step = self.saved_step if self.failure else trainer.global_step
        if self.failure is None and trainer.is_global_zero:
            self._retire(trainer.global_step)
        return self.failure is None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.selection is None or self.is_closed or trainer.sanity_checking:
            return
        values = self._values(trainer, self.selection.names)
        self.initial = self.initial or values
        self._broken = self.selection.broken(values, self.initial)
        value = values[self.selection.name]
        if self._broken or not self.selection.improves(value, self.best):
            return
        before, self.best = self.best, value
        if trainer.state.fn == TrainerFn.FITTING:
            if not self._save_best(trainer):
                self.best = before
        else:
            self._start_is_best = True  # saved when training starts, since there is no optimizer yet

    def _values(self, trainer: pl.Trainer, names: list[str]) -> dict[str, float]:
        """Numbers of a validation, by name. Raises UsageError if one is not logged."""
        prefix = "val/" if self.monitor is None else ""
        logged = {
            name.removeprefix(prefix): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(prefix)
        }
        # Metrics of an encoder log a mean among other numbers: clip_score stands for clip_score_mean.
        by_name = {name.removesuffix("_mean"): value for name, value in logged.items()} | logged
        for name in names:
            if name not in by_name:
                key = f"select={self.select!r}: {name}" if self.monitor is None else f"monitor={name}"
                raise UsageError(f"callback.checkpoints.{key} is not logged; logged: {', '.join(sorted(logged))}")
        return {name: by_name[name] for name in names}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the step at which a validation stopped the run. Warn if no validation chose a best."""
        if self.is_due(trainer) and trainer.global_step not in (self.saved_step, self.failed_step):
            self.save(trainer)
        if self.selection is None or self.best is not None or not trainer.is_global_zero:
            return
        why = f"{self.monitor} was NaN, or there was no validation"
        if self.select is not None:
            why = "no validation satisfied the limits of callback.checkpoints.select; the last one violated: "
            why += ", ".join(self._broken) or "none, but the value was NaN"
        warnings.warn(f"no best.ckpt: {why}", stacklevel=2)

    def _save_best(self, trainer: pl.Trainer) -> bool:
        """Save to the free slot, then point best.ckpt to it, which removes the previous best."""
        slot = free_slot(self._best)
        return self._save(trainer, slot, lambda: point_best_to(self._best, slot)) is None

    def _save(self, trainer: pl.Trainer, path: Path, after: Callable[[], None] | None = None) -> str | None:
        """Save to `path`, as a collective. Returns on every rank why it failed; None if it succeeded."""
        failure = None
        try:
            trainer.save_checkpoint(path)
        except CheckpointNotSavedError as error:
            failure = str(error)
            trainer.strategy.barrier()  # that of trainer.save_checkpoint, where the other ranks wait
        if failure is None and after is not None and trainer.is_global_zero:
            try:
                after()
            except OSError as error:
                failure = f"{path} was saved, but not made the best: {error}"
        failure = broadcast_object(failure)
        if failure is not None:
            self._report(trainer, failure)
        return failure

    def _report(self, trainer: pl.Trainer, failure: str) -> None:
        self._failures += 1
        if not trainer.is_global_zero:
            return
        warnings.warn(
            f"step {trainer.global_step}: {failure}. Training continues; earlier checkpoints are intact", stacklevel=2
        )
        numbers = {FAILED: float(self._failures)}
        if self._record is not None:
            self._record(trainer.global_step, numbers)
        for logger in trainer.loggers:
            logger.log_metrics(numbers, trainer.global_step)

    def _retire(self, step: int) -> None:
        """Remove old checkpoints after `step` was saved. Later ones, of an attempt that got further, are ignored.

        Files that capkit did not write are neither counted nor removed, whatever their names.
        """
        done = [path for path in checkpoints_in(self.folder) if step_of(path) <= step and is_own(path)]
        for path in done[self.keep_last :]:
            kept = self.keep_every_steps is not None and step_of(path) % self.keep_every_steps == 0
            if kept or step_of(path) == self.kept_step:
                continue
            try:
                remove_checkpoint(path)
            except OSError as error:
                warnings.warn(f"{path} could not be removed: {error}", stacklevel=2)
