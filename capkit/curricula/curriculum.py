"""The protocol of a curriculum: which examples form each batch, over time."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Curriculum(Protocol):
    """Yields this rank's indices of each global batch; a loader uses it as its batch sampler.

    Its constructor takes batch_size (global), seed, rank, world_size and num_examples by name.
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

    def consumed(self, num_batches: int = 1) -> None:
        """The training loop has finished this many further batches of the epoch."""
        ...

    def __iter__(self) -> Iterator[list[int]]: ...

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever a resumed one starts."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
