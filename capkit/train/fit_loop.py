"""Lightning's fit loop, made to go on from a checkpoint as if nothing had happened."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.trainer.states import TrainerFn


class FitLoop(_FitLoop):
    """A run that resumes from a checkpoint saved before the validation of its step begins with that validation.

    Lightning takes it for done: the run would lack its numbers, and what callbacks make of them (the best checkpoint,
    early stopping). One whose `max_steps` grew after it was done goes on.
    """

    def __init__(self, trainer: pl.Trainer, min_epochs: int | None = 0, max_epochs: int | None = None) -> None:
        super().__init__(trainer, min_epochs, max_epochs)
        self.last_validation = LastValidation()

    @classmethod
    def use(cls, trainer: pl.Trainer) -> None:
        """From here on this trainer's loop is such a one."""
        own = trainer.fit_loop
        loop = cls(trainer, own.min_epochs, own.max_epochs)
        loop.epoch_loop = own.epoch_loop
        trainer.fit_loop = loop
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.insert(0, loop.last_validation)  # before those that save at the end of a validation

    def reset(self) -> None:
        """Of a run that was made longer since, the last batch is that no more: Lightning would take it for done."""
        if self.trainer.global_step < self.trainer.max_steps:
            self.epoch_loop.batch_progress.is_last_batch = False
        super().reset()

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
        trainer = self.trainer
        step, every_steps = trainer.global_step, trainer.val_check_batch
        if not self.is_resuming or step in (0, self.last_validation.step) or not trainer.enable_validation:
            return False
        return trainer.should_stop or (every_steps is not None and step % every_steps == 0)

    def _validate(self) -> None:
        self.trainer.validating = True
        loop = self.epoch_loop.val_loop
        loop.restarting = False  # a validation that was cut begins anew
        loop.reset_restart_stage()
        loop.run()
        self.trainer.training = True


class LastValidation(Callback):
    """The step of the last validation within training that ended; None before the first."""

    def __init__(self) -> None:
        self.step: int | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step = state_dict["step"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self.step = trainer.global_step
