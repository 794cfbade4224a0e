"""Lightning's fit loop, which on a resume makes up for the validation of the step that it resumes from."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loops.fit_loop import _FitLoop


class FitLoop(_FitLoop):
    """A resumed run begins with the validation of its step, where one is due there.

    A checkpoint is saved before the validation of its step. Lightning takes that validation for done: a run killed in
    between would lack its numbers, and all that callbacks make of them: the best checkpoint, early stopping.
    """

    @classmethod
    def of(cls, trainer: pl.Trainer) -> "FitLoop":
        """A loop to take the place of the trainer's own."""
        own = trainer.fit_loop
        loop = cls(trainer, own.min_epochs, own.max_epochs)
        loop.epoch_loop = own.epoch_loop
        return loop

    @property
    def skip(self) -> bool:
        """Also a run whose steps are all done may owe its last validation."""
        return super().skip and not self._owes_validation

    def on_run_start(self) -> None:
        super().on_run_start()
        if self._owes_validation:
            self._validate()

    @property
    def _owes_validation(self) -> bool:
        fetcher: Any = self._data_fetcher
        done = self.trainer.global_step
        is_between_steps = done == self.epoch_loop.batch_progress.current.ready  # else the next one was begun after it
        return self.is_resuming and done > 0 and is_between_steps and self.epoch_loop._should_check_val_fx(fetcher)

    def _validate(self) -> None:
        self.trainer.validating = True
        loop = self.epoch_loop.val_loop
        loop.restarting = False  # a validation that was cut begins anew
        loop.reset_restart_stage()
        loop.run()
        self.trainer.training = True
