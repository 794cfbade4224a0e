"""Whole training steps of Lightning's Trainer, one for each call, so that they can take turns with other work."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Semaphore
from typing import Any

import lightning.pytorch as pl

from capkit.train.callbacks.guard import SkipBadSteps
from capkit.train.callbacks.recorder import Recorder
from capkit.train.train_module import TrainModule
from capkit.utils.quiet import quiet_libraries


class Steps(pl.Callback):
    """`steps()` makes one step on the batch, with the guard, and the recorder as the next-to-last callback."""

    def __init__(self, module: TrainModule, batch: Any, device: str) -> None:
        self._batch = batch
        self._asked, self._made = Semaphore(0), Semaphore(0)
        quiet_libraries()
        self._trainer = pl.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed",
            max_steps=10**9,
            callbacks=[SkipBadSteps(), Recorder(), self],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        # Trainer.fit owns the loop: it runs in a thread of its own, and its loader waits until a step is asked for.
        pool = ThreadPoolExecutor(1)
        self._fit: Future[Any] = pool.submit(self._trainer.fit, module, self)
        self._fit.add_done_callback(lambda _: self._made.release())

    def __len__(self) -> int:
        return 10**9

    def __iter__(self) -> Iterator[Any]:
        while not self._trainer.should_stop:
            self._asked.acquire()
            if not self._trainer.should_stop:
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
        self._trainer.should_stop = True
        self._asked.release()
        self._fit.result()
