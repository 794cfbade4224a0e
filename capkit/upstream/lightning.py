"""Lightning: a fit loop that resumes exactly, a DDP strategy without the wrapper, signals left to capkit."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn


class FitLoop(_FitLoop):
    """Fit loop that begins a resumed run with the validation that its checkpoint's step still lacks.

    Lightning treats that validation as done: its numbers would be missing, and so would what callbacks derive from
    them (best checkpoint, early stopping). A finished run whose `max_steps` was raised continues training.
    """

    def __init__(self, trainer: pl.Trainer, min_epochs: int | None = 0, max_epochs: int | None = None) -> None:
        super().__init__(trainer, min_epochs, max_epochs)
        self.last_validation = LastValidation()

    @classmethod
    def use(cls, trainer: pl.Trainer) -> None:
        """Replace the trainer's fit loop with this one."""
        own = trainer.fit_loop
        loop = cls(trainer, own.min_epochs, own.max_epochs)
        loop.epoch_loop = own.epoch_loop
        trainer.fit_loop = loop
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.insert(0, loop.last_validation)  # before those that save at the end of a validation

    def reset(self) -> None:
        """After `max_steps` was raised, clear the saved `is_last_batch`: Lightning would take the run for finished."""
        if self.trainer.global_step < self.trainer.max_steps:
            self.epoch_loop.batch_progress.is_last_batch = False
        super().reset()

    @property
    def skip(self) -> bool:
        """False while a validation is due, even if all steps are done."""
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
        loop.restarting = False  # an interrupted validation starts over
        loop.reset_restart_stage()
        loop.run()
        self.trainer.training = True


class LastValidation(Callback):
    """Remembers the step of the last completed validation during fit; None before the first."""

    def __init__(self) -> None:
        self.step: int | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step = state_dict["step"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING:
            self.step = trainer.global_step


class UnwrappedDDPStrategy(DDPStrategy):
    """Lightning's DDP strategy without the DDP wrapper: base of strategies whose engine reduces gradients itself."""

    def configure_ddp(self) -> None:
        """Leave the module as it is."""


def register_no_signal_handlers(trainer: pl.Trainer) -> None:
    """Keep Lightning from handling signals: it would broadcast and requeue SLURM jobs from within the handler.

    Among several ranks it would also broadcast in each step whether rank 0 got a SIGTERM, and wait for the answer: on a
    GPU for all work of the step before.
    """
    trainer._signal_connector.register_signal_handlers = _nothing  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]


def _nothing() -> None:
    pass
