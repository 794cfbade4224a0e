"""Running out of GPU memory: retry with half the size."""

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from capkit.errors import RunFailure

Result = TypeVar("Result")


def retry_on_oom(work: Callable[[], Result], shrink: Callable[[str], None]) -> Result:
    """Return `work()`. Each time it runs out of memory, call `shrink(why)` and start it again."""
    while True:
        try:
            return work()
        except torch.OutOfMemoryError as error:
            why = str(error).splitlines()[0]
        # Outside the except block, which would keep the failed pass's tensors alive.
        shrink(why)
        torch.cuda.empty_cache()


def halve(size: int, why: str, advice: str) -> int:
    """Half of `size`, rounded up. Raises RunFailure if the size is 1."""
    if size == 1:
        raise RunFailure(f"a single image does not fit into memory ({why}); {advice}")
    return -(-size // 2)


def map_in_chunks(
    rows: Any,
    fn: Callable[[Any], Result],
    size: int | None = None,
    keep: Callable[[int], None] | None = None,
) -> list[Result]:
    """Apply `fn` to consecutive chunks of `rows` (a list, a batch) of at most `size` rows (None: all at once).

    If a chunk runs out of memory, retry it with half the rows and use that size from then on; `keep` receives it. `fn`
    must be row-independent and must not communicate. Raises RunFailure if a single row does not fit.
    """
    at_once, start = size or len(rows), 0
    results: list[Result] = []

    def chunk() -> Result:
        return fn(rows[start : start + at_once])

    def shrink(why: str) -> None:
        nonlocal at_once
        num_rows = min(at_once, len(rows) - start)
        at_once = halve(num_rows, why, "choose a smaller model, decoding.max_length or decoding.num_beams")
        warnings.warn(f"{num_rows} at once do not fit into memory ({why}): now {at_once} at a time", stacklevel=4)
        if keep is not None:
            keep(at_once)

    while start < len(rows):
        results.append(retry_on_oom(chunk, shrink))
        start += at_once
    return results
