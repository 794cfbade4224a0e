"""What this process is doing, for those who watch it: the section of the run it is in, and a count that grows.

A thread that lives proves little: it goes on while the main thread waits for ever. The count grows only where the main
thread gets on: after a step, a validation batch, a section.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SECTIONS = ("setup", "step", "rollout", "checkpoint", "evaluation")


@dataclass
class Doing:
    """`since`: the monotonic time at which `count` last grew."""

    section: str = "setup"
    count: int = 0
    step: int = 0
    since: float = field(default_factory=time.monotonic)


NOW = Doing()


def advance(section: str | None = None, step: int | None = None) -> None:
    """The main thread got on; from here on it is in `section`, at optimizer step `step`."""
    assert section is None or section in SECTIONS, section
    NOW.section = section or NOW.section
    NOW.step = NOW.step if step is None else step
    NOW.since = time.monotonic()
    NOW.count += 1


@contextmanager
def doing(section: str) -> Iterator[None]:
    """A section inside another one."""
    outer = NOW.section
    advance(section)
    try:
        yield
    finally:
        advance(outer)
