"""Whether this process is capkit's own, which it may end, or another program's, such as a notebook's kernel."""

from collections.abc import Iterator
from contextlib import contextmanager

_lent: list[None] = []


@contextmanager
def lent_process() -> Iterator[None]:
    """Context in which nothing of capkit ends this process: what would is told instead, or raised."""
    _lent.append(None)
    try:
        yield
    finally:
        _lent.pop()


def may_end_process() -> bool:
    """Whether a run that must end at once may take the process with it."""
    return not _lent
