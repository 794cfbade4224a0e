"""Work that is done in smaller parts when a GPU's memory ends in it."""

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from capkit.errors import RunFailure

Result = TypeVar("Result")


def until_it_fits(work: Callable[[], Result], shrink: Callable[[str], None]) -> Result:
    """What `work` gives, done again from its start, after `shrink(why)`, as often as memory ends in it."""
    while True:
        try:
            return work()
        except torch.OutOfMemoryError as error:
            why = str(error).splitlines()[0]
        # Out of the except block, which keeps the failed pass in memory.
        shrink(why)
        torch.cuda.empty_cache()


def half(size: int, why: str, advice: str) -> int:
    """Half of the size, rounded up. Raises RunFailure where there is nothing left to halve."""
    if size == 1:
        raise RunFailure(f"a single image does not fit into memory ({why}); {advice}")
    return -(-size // 2)


def in_parts(
    rows: Any,
    work: Callable[[Any], Result],
    size: int | None = None,
    keep: Callable[[int], None] | None = None,
) -> list[Result]:
    """`work` of one slice of `rows` (a list, a batch) after the other, `size` of them at once (None: all).

    The part in which memory ends is done again in halves, and what follows in parts of that size, which `keep` is told.
    So `work` must give each row what it would give it in any other part, and must not wait for other ranks. Raises
    RunFailure where a single row does not fit.
    """
    at_once, start = size or len(rows), 0
    results: list[Result] = []

    def part() -> Result:
        return work(rows[start : start + at_once])

    def shrink(why: str) -> None:
        nonlocal at_once
        num_rows = min(at_once, len(rows) - start)
        at_once = half(num_rows, why, "choose a smaller model, decoding.max_length or decoding.num_beams")
        warnings.warn(f"{num_rows} at once do not fit into memory ({why}): now {at_once} at a time", stacklevel=4)
        if keep is not None:
            keep(at_once)

    while start < len(rows):
        results.append(until_it_fits(part, shrink))
        start += at_once
    return results
