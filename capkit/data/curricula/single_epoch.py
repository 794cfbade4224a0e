"""A curriculum over the steps of a whole run, for a loop that sees one long epoch."""

import math
from collections.abc import Iterator

from capkit.data.curricula.base import Curriculum, Guided


class Steps:
    """The batches of steps `start` to `total`, epoch after epoch of the curriculum.

    The place in the data follows from the step alone, and of a guided curriculum from what it observed: a resume needs
    no other state, and the number of ranks may change. It has no `sampler`: Lightning's epochs are not the
    curriculum's.
    """

    def __init__(self, curriculum: Curriculum, start: int, total: int) -> None:
        self._curriculum, self._start, self._total = curriculum, start, total

    @property
    def epoch(self) -> int:
        """The epoch of the batch that was yielded last."""
        return self._curriculum.epoch

    def __len__(self) -> int:
        """Steps of the whole run, wherever a resumed one starts: Lightning counts the steps done as fetched."""
        return self._total

    def __iter__(self) -> Iterator[list[int]]:
        for part in self.parts():
            yield from part

    def parts(self) -> Iterator[Iterator[list[int]]]:
        """The batches in parts that may be fetched ahead of training.

        The next part must be asked for when the steps of all before it are done: what it holds depends on them. A
        curriculum that is not guided gives one part.
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
