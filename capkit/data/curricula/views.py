"""Batches of bags of views: pictures of one object together, for losses that compare them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from capkit.data.curricula.shuffle import Shuffle
from capkit.errors import UsageError
from capkit.utils.ranges import AtLeastTwo, NonNegativeInt, PositiveInt, Seed, check_ranges
from capkit.utils.rng import generator, stable_hash


@check_ranges
class Views(Shuffle):
    """Yields this rank's indices of each global batch of bags: `num_views` views of one object (`Record.object`) each.

    In each epoch the views of an object are shuffled, by (seed, epoch), and cut into bags; what is left of them sits
    the epoch out, and so do the last bags that do not fill a batch. An object with fewer views than that is never seen;
    `describe` counts these pictures. A batch has floor(batch_size / num_views) bags. Rank r takes images r,
    r + world_size, ... of it: a bag is spread over ranks, and losses that compare its images must gather them.

    Raises UsageError for pictures without `object`, if no object has `num_views` views, and if a batch has no room for
    bags of two objects or the bags do not fill one.
    """

    def __init__(
        self,
        batch_size: PositiveInt,
        seed: Seed,
        rank: NonNegativeInt,
        world_size: PositiveInt,
        num_examples: NonNegativeInt,
        objects: Callable[[], Sequence[str | None]],
        num_views: AtLeastTwo = 2,
    ) -> None:
        super().__init__(batch_size, seed, rank, world_size, num_examples)
        self.num_views = num_views
        names = objects()
        if (place := next((i for i, name in enumerate(names) if name is None), None)) is not None:
            raise UsageError(
                f"curriculum=views expected records with `object`, got none in the training record {place} of "
                f"{len(names)}; name what each picture shows (docs/views.md), or set curriculum=shuffle"
            )
        found: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            found.setdefault(str(name), []).append(index)
        self._hash = stable_hash(*names)
        self._objects = [np.array(views) for views in found.values() if len(views) >= num_views]
        self._num_bags = sum(len(views) // num_views for views in self._objects)
        self._per_batch = batch_size // num_views
        if not self._objects:
            raise UsageError(
                f"expected objects with num_views={num_views} views, got {len(found)} objects with at most "
                f"{max(map(len, found.values()))}; lower curriculum.num_views, or check the records' `object`"
            )
        if self._per_batch < 2 or len(self) < 1:
            raise UsageError(
                f"a batch of batch_size={batch_size} needs bags of num_views={num_views} views of two objects or more, "
                f"and there are {self._num_bags} bags; set data.batch_size from {2 * num_views} to "
                f"{self._num_bags * num_views}"
            )
        self._bag_of: tuple[int, Int[np.ndarray, " N"]] = (-1, np.zeros(0, np.int64))

    def __len__(self) -> int:
        """Batches of an epoch, including those before a resumed position."""
        return self._num_bags // self._per_batch

    def __iter__(self) -> Iterator[list[int]]:
        bags = self._bags(self.epoch)
        for start in range(self.num_consumed * self._per_batch, len(self) * self._per_batch, self._per_batch):
            yield bags[start : start + self._per_batch].ravel()[self.rank :: self.world_size].tolist()

    def _bags(self, epoch: int) -> Int[np.ndarray, "bags num_views"]:
        draw = generator(self.seed, "views", epoch)
        size = self.num_views
        bags = [draw.permutation(views)[: len(views) // size * size].reshape(-1, size) for views in self._objects]
        return draw.permutation(np.concatenate(bags))

    def bag_ids(self, indices: Sequence[int]) -> list[int]:
        """The number of each image's bag in the current epoch, equal for bag mates on all ranks; -1: none."""
        if self._bag_of[0] != self.epoch:
            places, bags = np.full(self.num_examples, -1, np.int64), self._bags(self.epoch)
            places[bags] = np.arange(len(bags))[:, None]
            self._bag_of = (self.epoch, places)
        return self._bag_of[1][list(indices)].tolist()

    def bag_size(self, step: int) -> int:
        return self.num_views

    def describe(self) -> dict[str, Any]:
        """Sizes, and how many images no epoch sees for want of other views of their object."""
        return {
            "num_views": self.num_views,
            "objects": len(self._objects),
            "bags": self._num_bags,
            "batches_per_epoch": len(self),
            "images_of_too_few_views": self.num_examples - sum(map(len, self._objects)),
        }

    def _identity(self) -> dict[str, Any]:
        return {**super()._identity(), "num_views": self.num_views, "objects": self._hash}
