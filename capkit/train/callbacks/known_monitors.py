"""Tells, at the first validation, that early stopping waits for a number that the run does not log."""

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from capkit.errors import UsageError, did_you_mean


class KnownMonitors(Callback):
    """Raises UsageError where Lightning's EarlyStopping is to watch what no validation logs. Stands in front of it.

    A validation that was cut logs nothing, and is not asked.
    """

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        logged = sorted(trainer.callback_metrics)
        for callback in trainer.early_stopping_callbacks:
            if logged and callback.strict and callback.monitor not in logged:
                raise UsageError(
                    f"callback.early_stopping.monitor={callback.monitor} is not logged; logged: {', '.join(logged)}; "
                    f"{did_you_mean(callback.monitor, logged)}"
                )
