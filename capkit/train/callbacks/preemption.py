"""Preemption: a run that is asked to stop saves what it has, says that it wants to go on, and goes."""

import signal
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from capkit.distributed.collectives import is_distributed
from capkit.fault_tolerance.stop_signal import Stopped, StopSignal, listen
from capkit.train.callbacks.checkpoints import Checkpoints
from capkit.train.train_module import TrainModule


class Preemption(Callback):
    """SIGTERM, SIGUSR1 or SIGUSR2 to any rank: one save that all ranks agree on, then exit status 75 on each.

    Ctrl-C (SIGINT) does the same and ends with 130; a second one ends the run at once.

    Ranks agree between optimizer steps, in a rollout once it is sampled, and at the end of a validation. A rank that
    knows of the signal does not finish what is before the next such place: what remains of a rollout or a validation is
    skipped. Both follow from the seed and the step alone and are done again after the resume; the checkpoint is that of
    the last finished step. Before and after training there is nothing to save, and ranks leave at once.

    Where SLURM runs the job, rank 0 asks it to requeue the job. Agreeing costs one tiny all-reduce on the CPU a step.
    """

    def __init__(self) -> None:
        self.signal: StopSignal | None = None
        self._group: Any = None
        self._checkpoints: Checkpoints | None = None

    def listen(self, trainer: pl.Trainer) -> None:
        """From here on signals are heard. All ranks call it, after they know each other."""
        store = None
        if is_distributed():
            # A client of its own: where the main thread waits for a key, its client answers nobody else.
            store = dist.distributed_c10d._get_default_store().clone()
            on_cpu = dist.get_backend() == "gloo"
            self._group = dist.group.WORLD if on_cpu else dist.new_group(backend="gloo")
        self.signal = listen(trainer.global_rank, store)
        # Lightning's own handler would broadcast over ranks from within a signal handler, and requeue SLURM jobs.
        trainer._signal_connector.register_signal_handlers = _nothing  # type: ignore[method-assign]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        self._checkpoints = next((callback for callback in callbacks if isinstance(callback, Checkpoints)), None)
        if isinstance(pl_module, TrainModule):
            pl_module.safe_point = partial(self.meet, trainer)
            pl_module.is_stopping = lambda: self.is_stopping

    @property
    def is_stopping(self) -> bool:
        """Whether this rank knows of the signal: then the next `meet` ends the run on all ranks."""
        return self.signal is not None and self.signal.requested

    def meet(self, trainer: pl.Trainer) -> None:
        """A safe point of training, weights being those of the last finished step: all ranks stop here, or none."""
        if self.signal is None or trainer.state.fn != TrainerFn.FITTING:
            return
        number = signal.Signals[self.signal.name].value if self.is_stopping else 0
        asked = torch.tensor([float(number)])
        if self._group is not None:
            dist.all_reduce(asked, dist.ReduceOp.MAX, group=self._group)
        if asked.item():
            self.signal.name = signal.Signals(int(asked)).name  # the same on all ranks, and with it the exit status
            self._stop(trainer)

    def _stop(self, trainer: pl.Trainer) -> None:
        assert self.signal is not None
        self.signal.requested = True
        step = trainer.global_step
        saved = self._save(trainer)
        goes_on = f"the same command with run_dir={trainer.default_root_dir} goes on from there"
        self.signal.tell(f"step {step:,} was the last, {saved}; {goes_on}")
        if self._group is not None:
            dist.barrier(self._group)  # launchers end all ranks as soon as one has left
        raise Stopped(self.signal.status)

    def _save(self, trainer: pl.Trainer) -> str:
        """The checkpoint of the last step, unless it is there; what there is to say about it."""
        checkpoints = self._checkpoints
        if checkpoints is None or checkpoints.is_closed or trainer.global_step == 0:
            return "nothing was saved"
        was_saved = checkpoints.saved_step == trainer.global_step
        return f"saved in {checkpoints.folder}" if was_saved or checkpoints.save(trainer) else "but could not be saved"

    # -- where ranks meet

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.signal is not None:
            self.signal.may_leave = False
        self.meet(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self.meet(trainer)

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Lightning takes StopIteration here for the end of the data. Ranks have different numbers of batches."""
        if trainer.state.fn == TrainerFn.FITTING and self.is_stopping:
            raise StopIteration

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before captions are gathered and scored."""
        self.meet(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.meet(trainer)
        if self.signal is not None:
            self.signal.may_leave = True


def _nothing() -> None:
    """In place of what registers signal handlers."""
