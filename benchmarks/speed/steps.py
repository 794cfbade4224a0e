"""Whole training steps of Lightning's Trainer, one for each call, so that they can take turns with other work."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Semaphore
from typing import Any

import lightning.pytorch as pl

from capkit.testing.distributed import bare_trainer
from capkit.train.callbacks.guard import SkipBadSteps
from capkit.train.callbacks.recorder import Recorder
from capkit.train.train_module import TrainModule
from capkit.upstream.lightning import register_no_signal_handlers
from capkit.utils.quiet import quiet_libraries


class Steps(pl.Callback):
    """`steps()` makes one step on the batch, with the guard, and the recorder as the next-to-last callback.

    Among several ranks `batch` is this one's share, and all of them make their steps at once, by DDP or `strategy`.
    """

    def __init__(
        self,
        module: TrainModule,
        batch: Any,
        device: str,
        strategy: Any = None,
        precision: str = "bf16-mixed",
        callbacks: Sequence[pl.Callback] = (),
    ) -> None:
        self._batch, self._closed = batch, False
        self._asked, self._made = Semaphore(0), Semaphore(0)
        quiet_libraries()
        self._trainer = bare_trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            precision=precision,
            max_steps=10**9,
            callbacks=[*callbacks, SkipBadSteps(), Recorder(), self],
            limit_val_batches=0,
            **({} if strategy is None else {"strategy": strategy}),
        )
        register_no_signal_handlers(self._trainer)
        # Trainer.fit owns the loop: it runs in a thread of its own, and its loader waits until a step is asked for.
        pool = ThreadPoolExecutor(1)
        self._fit: Future[Any] = pool.submit(self._trainer.fit, module, self)
        self._fit.add_done_callback(lambda _: self._made.release())

    def __len__(self) -> int:
        return 10**9

    def __iter__(self) -> Iterator[Any]:
        while True:
            self._asked.acquire()
            if self._closed:  # decided here, where all ranks are at the same point of the loop
                self._trainer.should_stop = True
                return
            yield self._batch

    def on_train_batch_end(self, *args: Any) -> None:
        self._made.release()

    def __call__(self) -> None:
        self._asked.release()
        self._made.acquire()
        if self._fit.done():
            self._fit.result()

    def close(self) -> None:
        """End the run, and the thread with it."""
        self._closed = True
        self._asked.release()
        self._fit.result()
