"""The protocol of a curriculum: which examples form each batch, over time."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Curriculum(Protocol):
    """Yields this rank's indices of each global batch; a loader uses it as its batch sampler.

    Its constructor takes batch_size (global), seed, rank, world_size and num_examples by name. One that knows images by
    their keys takes `keys` as well: a function that gives the keys of all training images, by index.

    Epochs may differ in length: `place` and `num_steps` say where steps lie among them. They depend on the
    constructor's arguments alone, so the place in the data follows from the step. Of a `Guided` curriculum they depend
    on what it observed as well, which its state holds.
    """

    epoch: int

    @property
    def sampler(self) -> "Curriculum":
        """Itself: Lightning calls `set_epoch` on `batch_sampler.sampler` only, and is silent where there is none."""
        ...

    def set_epoch(self, epoch: int) -> None: ...

    def seek(self, epoch: int, num_consumed: int) -> None:
        """Goes to a place: this many batches of this epoch are done."""
        ...

    def place(self, step: int) -> tuple[int, int]:
        """The epoch, and the batches of it that are done, after this many steps of a run."""
        ...

    def num_steps(self, epochs: float | int) -> int:
        """Steps of the first `epochs` epochs, rounded."""
        ...

    def consumed(self, num_batches: int = 1) -> None:
        """The training loop has finished this many further batches of the epoch."""
        ...

    def __iter__(self) -> Iterator[list[int]]: ...

    def __len__(self) -> int:
        """Batches of the epoch it is at, all of them, wherever a resumed one starts."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Grouped(Protocol):
    """A curriculum whose batches are made of bags."""

    def bag_ids(self, indices: Sequence[int]) -> list[int]:
        """The bag of each example of the batch that was yielded last, the same number for mates over all ranks."""
        ...

    def describe(self) -> dict[str, Any]:
        """What the batches are made of, as plain data: kept in the run folder."""
        ...

    def bag_size(self, step: int) -> int:
        """Images of a bag in the batch of this step, counted from 0."""
        ...


@runtime_checkable
class Guided(Protocol):
    """A curriculum whose batches may depend on how training goes."""

    @property
    def watched(self) -> str | None:
        """The name of the logged number that it wants to be told after each step; None: none."""
        ...

    def observe(self, step: int, value: float) -> None:
        """The watched number of the step that was just done, the `step`-th, the same on all ranks."""
        ...

    def known_until(self, step: int) -> float | int:
        """The step before which the batches from `step` on do not depend on what is still to be observed."""
        ...
