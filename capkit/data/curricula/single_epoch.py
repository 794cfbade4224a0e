"""A curriculum over all steps of a run, for a loop that runs one long epoch."""

import math
from collections.abc import Iterator

from capkit.data.curricula.base import Curriculum, Guided


class Steps:
    """The batches of steps `start` to `total`, across epochs of the curriculum.

    The position in the data follows from the step (with a guided curriculum, also from its observations), so resuming
    needs no other state and the number of ranks may change. Has no `sampler`, since Lightning's epochs are not the
    curriculum's.
    """

    def __init__(self, curriculum: Curriculum, start: int, total: int) -> None:
        self._curriculum, self._start, self._total = curriculum, start, total

    @property
    def epoch(self) -> int:
        """The epoch of the last yielded batch."""
        return self._curriculum.epoch

    def __len__(self) -> int:
        """Steps of the entire run, also after resuming: Lightning counts steps already done as fetched."""
        return self._total

    def __iter__(self) -> Iterator[list[int]]:
        for part in self.parts():
            yield from part

    def parts(self) -> Iterator[Iterator[list[int]]]:
        """The batches in parts, within which they may be prefetched.

        Request the next part only after the training steps of all earlier ones, since it depends on them. A curriculum
        that is not guided has one part.
        """
        step = self._start
        while step < self._total:
            known = self._curriculum.known_until(step) if isinstance(self._curriculum, Guided) else math.inf
            end = int(min(known, self._total))
            yield self._between(step, end)
            step = end

    def _between(self, step: int, end: int) -> Iterator[list[int]]:
        while step < end:
            self._curriculum.seek(*self._curriculum.place(step))
            for indices in self._curriculum:
                yield indices
                step += 1
                if step == end:
                    return
