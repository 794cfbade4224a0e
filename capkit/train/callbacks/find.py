"""Which of a trainer's callbacks are of a kind."""

from typing import TypeVar

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

Kind = TypeVar("Kind", bound=Callback)


def callbacks_of(trainer: pl.Trainer, kind: type[Kind]) -> list[Kind]:
    """The trainer's callbacks of this class, in the order in which they are called."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, kind)]
