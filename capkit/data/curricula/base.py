"""The protocol of a curriculum: which examples form each batch, over time."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Curriculum(Protocol):
    """Yields this rank's indices of each global batch; a loader uses it as its batch sampler.

    Its constructor takes batch_size (global), seed, rank, world_size and num_examples by name. If it identifies images
    by key, it also takes `keys`: a function that returns the keys of all training images in order; likewise `objects`,
    what each shows (`Record.object`).

    Epochs may differ in length; `place` and `num_steps` convert between steps and epochs. They depend only on the
    constructor's arguments, so the position in the data follows from the step. For a `Guided` curriculum they also
    depend on its observations, which are part of its state.
    """

    epoch: int

    @property
    def sampler(self) -> "Curriculum":
        """Returns self: Lightning calls `set_epoch` only on `batch_sampler.sampler`, silently skipping it if absent."""
        ...

    def set_epoch(self, epoch: int) -> None: ...

    def seek(self, epoch: int, num_consumed: int) -> None:
        """Move to the position after this many batches of this epoch."""
        ...

    def place(self, step: int) -> tuple[int, int]:
        """The epoch, and the number of its batches done, after this many steps of a run."""
        ...

    def num_steps(self, epochs: float | int) -> int:
        """Steps of the first `epochs` epochs, rounded."""
        ...

    def consumed(self, num_batches: int = 1) -> None:
        """Record that the training loop finished this many further batches of the epoch."""
        ...

    def __iter__(self) -> Iterator[list[int]]: ...

    def __len__(self) -> int:
        """Batches of the current epoch, including those before a resumed position."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Grouped(Protocol):
    """A curriculum whose batches consist of bags."""

    def bag_ids(self, indices: Sequence[int]) -> list[int]:
        """The bag of each example of the last yielded batch, equal for bag mates on all ranks."""
        ...

    def describe(self) -> dict[str, Any]:
        """Composition of the batches as plain data, stored in the run folder."""
        ...

    def bag_size(self, step: int) -> int:
        """Images per bag in the batch of this step, counted from 0."""
        ...


@runtime_checkable
class Guided(Protocol):
    """A curriculum whose batches may depend on logged numbers of training."""

    @property
    def watched(self) -> str | None:
        """The name of the logged number to pass to `observe` after each step; None if it needs none."""
        ...

    def observe(self, step: int, value: float) -> None:
        """Take the watched number of step `step`, just done; equal on all ranks."""
        ...

    def known_until(self, step: int) -> float | int:
        """The end of the range of steps, from `step` on, whose batches do not depend on future observations."""
        ...
