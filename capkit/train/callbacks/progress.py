"""Progress display of training, validation and captioning: bars, time left, latest numbers."""

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar

from capkit.train.callbacks.find import callbacks_of
from capkit.train.callbacks.throughput import Throughput
from capkit.types import CaptionBatch
from capkit.utils.console import Phase, clock, close_phase, innermost, open_phase, say
from capkit.utils.ranges import NonNegativeFloat, check_ranges

WINDOW = 51  # batch ends over which the displayed speed is measured
SECONDS_BETWEEN_NOTES = 0.5  # not at each step, since reading a loss waits for the GPU


@check_ranges
class ProgressBar(LightningProgressBar):
    """Bars on a terminal; elsewhere (a log file, SLURM) one plain line every `seconds_between_lines`."""

    def __init__(self, seconds_between_lines: NonNegativeFloat = 30.0) -> None:
        super().__init__()
        self.seconds_between_lines = seconds_between_lines
        self.images_per_second = 0.0
        self._training: Phase | None = None
        self._validation: Phase | None = None
        self._window: list[tuple[float, int]] = []
        self._noted_at = 0.0

    def disable(self) -> None:
        """Lightning calls this on ranks other than 0; the console itself prints on rank 0 only."""

    def enable(self) -> None: ...

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._window = [(time.monotonic(), 0)]
        self._training = open_phase(
            "training", trainer.max_steps, "steps", self.seconds_between_lines, start=trainer.global_step
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: CaptionBatch, batch_idx: int
    ) -> None:
        self._count(len(batch) * trainer.world_size)
        if self._training is None:
            return
        self._training.update(trainer.global_step)
        due = time.monotonic() - self._noted_at >= SECONDS_BETWEEN_NOTES or trainer.global_step >= trainer.max_steps
        if due and trainer.is_global_zero:
            self._noted_at = time.monotonic()
            self._training.note = f"loss {float(outputs['loss']):.3f}  {self.images_per_second:,.0f} images/s"
            for throughput in callbacks_of(trainer, Throughput):
                if throughput.note:
                    self._training.note += f"  {throughput.note}"

    def _count(self, images: int) -> None:
        """Images per second over the last 50 steps."""
        now = time.monotonic()
        self._window = [*self._window, (now, self._window[-1][1] + images)][-WINDOW:]
        (start, before), (end, after) = self._window[0], self._window[-1]
        self.images_per_second = (after - before) / max(end - start, 1e-9)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        batches = sum(int(count) for count in trainer.num_val_batches)
        self._validation = open_phase("validating", batches, "batches", self.seconds_between_lines)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if self._validation is not None:
            self._validation.advance()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._validation is not None:
            close_phase(self._validation)
        numbers = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        if numbers and trainer.is_global_zero:
            told = "  ".join(f"{name.removeprefix('val/')} {value:.3g}" for name, value in numbers.items())
            say(f"validation at step {trainer.global_step:,}: {told}")

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: CaptionBatch, *args: Any
    ) -> None:
        """The phase is the task's, which knows what is captioned and why."""
        captioning = innermost()
        if captioning is not None and captioning.total is not None:
            captioning.update(min(captioning.total, captioning.done + len(batch) * trainer.world_size))

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        training = self._training
        self._stop()
        if training is not None:
            steps = trainer.global_step - training.start
            if steps:
                say(f"trained {steps:,} steps in {clock(training.seconds)}: {training.note}")

    def _stop(self) -> None:
        """Close the training phase, and any phase within it."""
        if self._training is not None:
            close_phase(self._training)
            self._training = None
