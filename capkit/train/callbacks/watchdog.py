"""Watchdog callback: ends all ranks of a run, and says why, when one of them is lost, stuck or failed."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from capkit.distributed.collectives import broadcast_object, rank, world_size
from capkit.fault_tolerance.heartbeats import HeartbeatFiles, new_attempt
from capkit.fault_tolerance.liveness import mark_progress
from capkit.fault_tolerance.stop_signal import is_stopping
from capkit.fault_tolerance.watchdog import Watchdog as Thread
from capkit.fault_tolerance.watchdog import start_watchdog, tell_failure
from capkit.utils.ranges import PositiveFloat, check_ranges


@check_ranges
class Watchdog(Callback):
    """Starts this rank's watchdog thread, and reports progress to it.

    What happens when a limit is exceeded, and the exit statuses: docs/faults.md.

    Args:
        timeout_s: seconds without a sign of life after which a rank is lost (stopped, or its machine gone).
        setup_s: seconds without progress allowed in setup, which includes the first step.
        step_s: the same for a training step.
        rollout_s: the same for a rollout.
        checkpoint_s: the same for saving a checkpoint.
        evaluation_s: the same for validation, and for all that follows training (test captions, metrics, report).
    """

    def __init__(
        self,
        timeout_s: PositiveFloat = 120.0,
        setup_s: PositiveFloat = 3600.0,
        step_s: PositiveFloat = 900.0,
        rollout_s: PositiveFloat = 900.0,
        checkpoint_s: PositiveFloat = 1800.0,
        evaluation_s: PositiveFloat = 7200.0,
    ) -> None:
        self.timeout_s = float(timeout_s)
        self.allowed_s = {
            "setup": float(setup_s),
            "step": float(step_s),
            "rollout": float(rollout_s),
            "checkpoint": float(checkpoint_s),
            "evaluation": float(evaluation_s),
        }
        self._training = "setup"

    def watch(self, run_dir: Path) -> None:
        """Start watching this rank. All ranks must call it, once the process group exists."""
        folder = broadcast_object(new_attempt(run_dir) if rank() == 0 else None)
        thread = Thread(HeartbeatFiles(folder, rank(), world_size()), self.timeout_s, self.allowed_s, is_stopping)
        mark_progress("setup", step=0)
        start_watchdog(thread)

    # -- progress of the run

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._training = "setup"  # until the first step ends: it compiles kernels and starts workers
        mark_progress(self._training, trainer.global_step)

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        mark_progress(self._training, trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._training = "step"
        mark_progress(self._training, trainer.global_step)

    def on_save_checkpoint(self, *args: Any) -> None:
        """The section lasts until training or validation continues."""
        mark_progress("checkpoint")

    def on_validation_start(self, *args: Any) -> None:
        mark_progress("evaluation")

    def on_validation_batch_end(self, *args: Any) -> None:
        mark_progress()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        mark_progress(self._training if trainer.training else None)

    def on_predict_start(self, *args: Any) -> None:
        mark_progress("evaluation")

    def on_predict_batch_end(self, *args: Any) -> None:
        mark_progress()

    def on_train_end(self, *args: Any) -> None:
        mark_progress("evaluation")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Report the error first, before anything is torn down, since the other ranks wait for this one."""
        tell_failure(exception)
