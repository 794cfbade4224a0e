"""What a person sees while a model trains: a bar with time left, images per second and the loss."""

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining

from capkit.types import CaptionBatch


class ProgressBar(LightningProgressBar):
    """A rich bar on a terminal; elsewhere (a log file, SLURM) one plain line every `seconds_between_lines`."""

    def __init__(self, seconds_between_lines: float = 30.0) -> None:
        super().__init__()
        self.seconds_between_lines = seconds_between_lines
        self.images_per_second = 0.0
        self.enabled = True
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._window: list[tuple[float, int]] = []
        self._last_line = 0.0
        self._last_step = 0

    def disable(self) -> None:
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        (self._progress.console.print if self._progress else print)(*args)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._window = [(time.monotonic(), 0)]
        self._last_step = trainer.global_step
        if self.enabled and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
            times = (TimeElapsedColumn(), TextColumn("left"), Remaining(), TextColumn("{task.fields[numbers]}"))
            self._progress = Progress(*columns, *times, console=Console(stderr=True))
            total = trainer.max_steps
            self._task = self._progress.add_task("train", total=total, completed=trainer.global_step, numbers="")
            self._progress.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: CaptionBatch, batch_idx: int
    ) -> None:
        self._count(len(batch) * trainer.world_size)
        if not self.enabled:
            return
        due = time.monotonic() - self._last_line >= self.seconds_between_lines
        if self._progress is None and not due and trainer.global_step < trainer.max_steps:
            return
        numbers = f"loss {float(outputs['loss']):.3f}  {self.images_per_second:,.0f} images/s"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=trainer.global_step, numbers=numbers)
        else:
            self._print_line(trainer, numbers)

    def _count(self, images: int) -> None:
        """Images per second over the last 50 steps."""
        now = time.monotonic()
        self._window.append((now, self._window[-1][1] + images))
        self._window = self._window[-51:]
        (start, before), (end, after) = self._window[0], self._window[-1]
        self.images_per_second = (after - before) / max(end - start, 1e-9)

    def _print_line(self, trainer: pl.Trainer, numbers: str) -> None:
        self._last_line = time.monotonic()
        (start, _), (end, _) = self._window[0], self._window[-1]
        steps_left = trainer.max_steps - trainer.global_step
        left = steps_left * (end - start) / max(1, len(self._window) - 1)
        total = trainer.max_steps
        minutes, seconds = divmod(int(left), 60)
        line = f"step {trainer.global_step}/{total}  {numbers}  {minutes}:{seconds:02d} left"
        print(line, file=sys.stderr, flush=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
