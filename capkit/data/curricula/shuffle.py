"""Plain shuffling: every example once per epoch, in an order drawn from (seed, epoch)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from capkit.errors import UsageError
from capkit.utils.ranges import NonNegativeInt, PositiveInt, Seed, check_ranges
from capkit.utils.rng import generator


@check_ranges
class Shuffle:
    """Yields this rank's indices of each shuffled global batch: rank r takes r, r + world_size, ... of it.

    The order depends only on (seed, epoch), so 1 process x 8 and 2 processes x 4 see the same global batches. All
    batches are full: the last one is filled from the start of the epoch's order, or dropped with `drop_last`.
    `batch_size` is global.

    Resuming within an epoch continues after the batches reported by `consumed`; batches that workers had only
    prefetched do not count.
    """

    def __init__(
        self,
        batch_size: PositiveInt,
        seed: Seed,
        rank: NonNegativeInt,
        world_size: PositiveInt,
        num_examples: NonNegativeInt,
        drop_last: bool = False,
    ) -> None:
        check_batch_size(batch_size, world_size)
        if num_examples < 1:
            raise UsageError("no training examples to shuffle; check the train source of the data config")
        if drop_last and num_examples < batch_size:
            raise UsageError(
                f"batch_size={batch_size} is more than the {num_examples} training images, and drop_last leaves "
                "out the only batch; lower data.batch_size or set curriculum.drop_last=false"
            )
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self.num_examples, self.drop_last = num_examples, drop_last
        self.epoch = 0
        self.num_consumed = 0

    @property
    def sampler(self) -> "Shuffle":
        """Returns self: Lightning calls `set_epoch` only on `batch_sampler.sampler`, silently skipping it if absent."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch; has no effect on the epoch that is already running."""
        if epoch != self.epoch:
            self.seek(epoch, 0)

    def seek(self, epoch: int, num_consumed: int) -> None:
        """Move to the position after this many batches of this epoch."""
        self.epoch, self.num_consumed = epoch, num_consumed

    def place(self, step: int) -> tuple[int, int]:
        """The epoch, and the number of its batches done, after this many steps."""
        return divmod(step, len(self))

    def num_steps(self, epochs: float | int) -> int:
        """Steps of the first `epochs` epochs."""
        return round(epochs * len(self))

    def consumed(self, num_batches: int = 1) -> None:
        self.num_consumed += num_batches

    def __len__(self) -> int:
        """Batches of an epoch, including those before a resumed position."""
        return self.num_examples // self.batch_size if self.drop_last else -(-self.num_examples // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = generator(self.seed, "shuffle", self.epoch).permutation(self.num_examples)
        order = np.resize(order, len(self) * self.batch_size)  # repeats from the start, or truncates
        for start in range(self.num_consumed * self.batch_size, len(order), self.batch_size):
            yield order[start : start + self.batch_size][self.rank :: self.world_size].tolist()

    def _identity(self) -> dict[str, Any]:
        names = ("batch_size", "seed", "num_examples", "drop_last")
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "num_consumed": self.num_consumed, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the consumed batches; the number of ranks may differ, but nothing that orders the data."""
        check_same_order(state, self._identity())
        self.seek(state["epoch"], state["num_consumed"])


def check_same_order(state: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise UsageError if a setting that orders the data changed since the state was saved."""
    changed = [f"{name} {state.get(name)} -> {now}" for name, now in identity.items() if state.get(name) != now]
    if changed:
        raise UsageError(
            f"the checkpoint's position in the data does not fit ({', '.join(changed)}); resume with the same data, "
            "or start a new run from its weights with init_from=PATH"
        )


def check_batch_size(batch_size: int, world_size: int) -> None:
    if batch_size < 1 or batch_size % world_size:
        raise UsageError(
            f"batch_size={batch_size} counts the images of all {world_size} processes and must be a multiple of "
            f"{world_size}; set data.batch_size={max(1, round(batch_size / world_size)) * world_size}"
        )
