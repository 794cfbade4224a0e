"""Preemption: a run that is asked to stop saves its state, requeues itself under SLURM, and exits."""

import signal
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from capkit.distributed.collectives import host_group, is_distributed
from capkit.fault_tolerance.stop_signal import Stopped, StopSignal, listen
from capkit.train.callbacks.checkpoints import Checkpoints
from capkit.train.callbacks.find import callbacks_of
from capkit.train.train_module import TrainModule
from capkit.upstream.lightning import register_no_signal_handlers


class Preemption(Callback):
    """On SIGTERM, SIGUSR1 or SIGUSR2 to any rank: one checkpoint that all ranks agree on, then exit status 75 on each.

    Ctrl-C (SIGINT) does the same with status 130; a second one ends the run at once.

    Ranks agree between optimizer steps, in a rollout after sampling, and at the end of a validation. A rank that knows
    of the signal skips the remaining work of a rollout or validation before that point: it follows from seed and step
    alone, and is repeated after the resume. The checkpoint is that of the last finished step. Before and after training
    there is nothing to save, and ranks exit at once.

    Under SLURM, rank 0 requeues the job. Agreeing costs one tiny CPU all-reduce per step.
    """

    def __init__(self) -> None:
        self.signal: StopSignal | None = None
        self._group: Any = None
        self._checkpoints: Checkpoints | None = None

    def listen(self, trainer: pl.Trainer) -> None:
        """Start listening for signals. All ranks must call it, once the process group exists."""
        store = None
        if is_distributed():
            # A separate client: the main thread's is blocked while it waits for a key.
            store = dist.distributed_c10d._get_default_store().clone()
            self._group = host_group()
        self.signal = listen(trainer.global_rank, store)
        register_no_signal_handlers(trainer)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._checkpoints = next(iter(callbacks_of(trainer, Checkpoints)), None)
        if isinstance(pl_module, TrainModule):
            pl_module.safe_point = partial(self.meet, trainer)
            pl_module.is_stopping = lambda: self.is_stopping

    @property
    def is_stopping(self) -> bool:
        """Whether this rank knows of a signal; the next `meet` then ends the run on all ranks."""
        return self.signal is not None and self.signal.requested

    def meet(self, trainer: pl.Trainer) -> None:
        """A safe point of training, with the last finished step's weights: all ranks stop here, or none does."""
        if self.signal is None or trainer.state.fn != TrainerFn.FITTING:
            return
        number = signal.Signals[self.signal.name].value if self.is_stopping else 0
        asked = torch.tensor([float(number)])
        if self._group is not None:
            dist.all_reduce(asked, dist.ReduceOp.MAX, group=self._group)
        if asked.item():
            self.signal.name = signal.Signals(int(asked)).name  # so that all ranks exit with the same status
            self._stop(trainer)

    def _stop(self, trainer: pl.Trainer) -> None:
        assert self.signal is not None
        self.signal.requested = True
        step = trainer.global_step
        saved = self._save(trainer)
        goes_on = f"the same command with run_dir={trainer.default_root_dir} continues from there"
        self.signal.tell(f"step {step:,} was the last, {saved}; {goes_on}")
        if self._group is not None:
            dist.barrier(self._group)  # launchers kill all ranks once one exits
        raise Stopped(self.signal.status)

    def _save(self, trainer: pl.Trainer) -> str:
        """Save the last step unless that was done; returns the outcome as text."""
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
        """Skip the remaining batches: Lightning takes StopIteration for the end of the data. Ranks may differ here."""
        if trainer.state.fn == TrainerFn.FITTING and self.is_stopping:
            raise StopIteration

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Runs before captions are gathered and scored."""
        self.meet(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.meet(trainer)
        if self.signal is not None:
            self.signal.may_leave = True
