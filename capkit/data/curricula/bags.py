"""Batches of bags: groups of similar images found by `capkit bags`, whose size can grow over training."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from capkit.data.curricula.bag_files import BagFolder, size_of
from capkit.data.curricula.levels import Levels
from capkit.data.curricula.shuffle import check_batch_size, check_same_order
from capkit.data.curricula.stages import Stages
from capkit.errors import UsageError
from capkit.utils.ranges import FiniteFloat, NonNegativeInt, PositiveInt, Seed, check_ranges
from capkit.utils.rng import generator


@check_ranges
class Bags:
    """Yields this rank's indices of each global batch of bags (BagCurri; Gaur et al. 2024, arXiv 2409.03025).

    With bags of k images, a batch has floor(batch_size / k) bags, hence floor(batch_size / k) * k images: fewer than
    `batch_size` if k does not divide it. Rank r takes images r, r + world_size, ... of a batch. Ranks are disjoint and
    complete, have equal numbers of batches, and differ by at most one image per batch. A bag is spread over ranks:
    losses that compare its images must gather them.

    An epoch is one list of bags in an order drawn from (seed, epoch), so each image occurs at most once. It leaves out
    images in no bag of the list, and the last bags that do not fill a batch (others in each epoch); `describe` counts
    both.

    Raises UsageError if the bags are of other images than the training split, if a batch has no room for a bag or fewer
    images than ranks, or if a list does not fill a batch.

    Deliberate differences from the published code: (1) it shards by rank itself; (2) an image occurs at most once in an
    epoch.

    Args:
        folder: What `capkit bags` wrote.
        stages: Maps bounds to lists, by epoch or step (capkit/data/curricula/stages.py); by level, the lists in order.
        by: "epoch", "step" or "level".
        levels: By level: the next stage begins once the mean of `level_of` over `window` steps reaches the stage's
            level (capkit/data/curricula/levels.py). The training loop must `observe` the number after each step.
        level_of: The logged number.
        window: Steps that the mean is taken over.
    """

    def __init__(
        self,
        folder: str,
        stages: Mapping[Any, str] | Sequence[str],
        batch_size: PositiveInt,
        seed: Seed,
        rank: NonNegativeInt,
        world_size: PositiveInt,
        num_examples: NonNegativeInt,
        keys: Callable[[], Sequence[str]],
        by: Literal["epoch", "step", "level"] = "epoch",
        levels: Sequence[FiniteFloat] = (),
        level_of: str = "reward/total",
        window: PositiveInt = 50,
    ) -> None:
        check_batch_size(batch_size, world_size)
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self.num_examples = num_examples
        self._levels = Levels(level_of, levels, window) if by == "level" or levels else None
        self._stages = Stages(stages, by, self.num_batches, self._levels)
        for name in self._stages.names:
            self._check_size(size_of(name))
        found = BagFolder(folder)
        names = keys()
        found.check_split("train", names)
        index_of = {key: index for index, key in enumerate(names)}
        self._bags = {name: _indices(found.bags(name), index_of, size_of(name)) for name in self._stages.names}
        self._hashes = {name: found.hash(name) for name in self._stages.names}
        for name in self._stages.names:
            if not self.num_batches(name):
                raise UsageError(
                    f"{name} has {len(self._bags[name])} bags, but a batch of batch_size={batch_size} needs "
                    f"{self._bags_per_batch(name)}; lower data.batch_size, or mine more images"
                )
        self._bag_of: dict[str, Int[np.ndarray, " num_examples"]] = {}
        self.epoch = 0
        self.num_consumed = 0

    @property
    def sampler(self) -> "Bags":
        """Returns self: Lightning calls `set_epoch` only on `batch_sampler.sampler`, silently skipping it if absent."""
        return self

    @property
    def stage(self) -> str:
        """The list of the current epoch, e.g. hard-3."""
        return self._stages.epoch(self.epoch).name

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch; has no effect on the epoch that is already running."""
        if epoch != self.epoch:
            self.seek(epoch, 0)

    def seek(self, epoch: int, num_consumed: int) -> None:
        """Move to the position after this many batches of this epoch."""
        self.epoch, self.num_consumed = epoch, num_consumed

    def consumed(self, num_batches: int = 1) -> None:
        self.num_consumed += num_batches

    def place(self, step: int) -> tuple[int, int]:
        """The epoch, and the number of its batches done, after this many steps."""
        return self._stages.place(step)

    def num_steps(self, epochs: float | int) -> int:
        """Steps of the first `epochs` epochs."""
        return self._stages.num_steps(epochs)

    @property
    def watched(self) -> str | None:
        """The logged number that decides when stages begin; None if they go by epoch or step."""
        return None if self._levels is None else self._levels.name

    def observe(self, step: int, value: float) -> None:
        """Take the watched number of step `step`, just done. Every rank calls this after every step."""
        if self._levels is not None and self._levels.observe(step, value):
            self._stages.changed()

    def known_until(self, step: int) -> float | int:
        """The end of the range of steps, from `step` on, whose batches do not depend on future observations."""
        return math.inf if self._levels is None else self._levels.known_until(step)

    def bag_size(self, step: int) -> int:
        """Images per bag in the batch of this step, counted from 0."""
        return size_of(self._stages.epoch(self.place(step)[0]).name)

    def num_batches(self, name: str) -> int:
        """Batches of one pass over a list."""
        return len(self._bags[name]) // self._bags_per_batch(name)

    def __len__(self) -> int:
        """Batches of the current epoch, including those before a resumed position."""
        return self._stages.epoch(self.epoch).num_batches

    def __iter__(self) -> Iterator[list[int]]:
        number, name = self.epoch, self.stage
        bags, per_batch = self._bags[name], self._bags_per_batch(name)
        order = generator(self.seed, "bags", number).permutation(len(bags))
        for batch in range(self.num_consumed, len(self)):
            chosen = bags[order[batch * per_batch : (batch + 1) * per_batch]]
            yield chosen.ravel()[self.rank :: self.world_size].tolist()

    def bag_ids(self, indices: Sequence[int]) -> list[int]:
        """The number of each image's bag in the current epoch's list, equal for bag mates on all ranks; -1: none."""
        name = self.stage
        if name not in self._bag_of:
            places = np.full(self.num_examples, -1, np.int64)
            places[self._bags[name]] = np.arange(len(self._bags[name]))[:, None]
            self._bag_of = {name: places}
        return self._bag_of[name][list(indices)].tolist()

    def describe(self) -> dict[str, Any]:
        """The stages, and for each list its sizes and the hash of its bags."""
        lists = {
            name: {
                "hash": self._hashes[name],
                "bag_size": size_of(name),
                "images_per_batch": self._bags_per_batch(name) * size_of(name),
                "batches_per_epoch": self.num_batches(name),
                "images_in_no_bag": self.num_examples - self._bags[name].size,
                "images_left_over": (len(self._bags[name]) % self._bags_per_batch(name)) * size_of(name),
            }
            for name in self._stages.names
        }
        return {"stages": self._stages.describe(), "lists": lists}

    def _bags_per_batch(self, name: str) -> int:
        return self.batch_size // size_of(name)

    def _check_size(self, size: int) -> None:
        if self.batch_size < size:
            raise UsageError(
                f"a batch of batch_size={self.batch_size} has no room for a bag of {size}; raise data.batch_size"
            )
        if self.batch_size // size * size < self.world_size:
            raise UsageError(
                f"bags of {size} fill a batch of batch_size={self.batch_size} with {self.batch_size // size * size} "
                f"images, fewer than the {self.world_size} processes; raise data.batch_size"
            )

    def _identity(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "seed": self.seed,
            "num_examples": self.num_examples,
            "stages": self._stages.describe(),
            "bags": dict(self._hashes),
        }

    def state_dict(self) -> dict[str, Any]:
        state = {"epoch": self.epoch, "num_consumed": self.num_consumed, **self._identity()}
        return state if self._levels is None else {**state, "levels": self._levels.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the consumed batches; the number of ranks may differ, but nothing that orders the data."""
        check_same_order(state, self._identity())
        if self._levels is not None:
            self._levels.load_state_dict(state["levels"])
            self._stages.changed()
        self.seek(state["epoch"], state["num_consumed"])


def _indices(bags: list[list[str]], index_of: Mapping[str, int], size: int) -> Int[np.ndarray, "bags size"]:
    """Indices of the keys in the training split, which has all of them: `check_split` compared the hashes."""
    return np.array([[index_of[key] for key in bag] for bag in bags], np.int64).reshape(-1, size)
