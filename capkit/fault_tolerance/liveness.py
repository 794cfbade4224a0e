"""What this process is doing, for the watchdogs: the section of the run that it is in, and a count that grows.

That a process is alive proves little: its threads run on while the main thread waits for ever. The count grows only
where the main thread makes progress: after a step, a validation batch, a section.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SECTIONS = ("setup", "step", "rollout", "checkpoint", "evaluation")


@dataclass
class Liveness:
    """`since`: the monotonic time at which `count` last grew."""

    section: str = "setup"
    count: int = 0
    step: int = 0
    since: float = field(default_factory=time.monotonic)


NOW = Liveness()


def mark_progress(section: str | None = None, step: int | None = None) -> None:
    """Count one more sign of life of the main thread, which is in `section` from here on, at optimizer step `step`."""
    assert section is None or section in SECTIONS, section
    NOW.section = section or NOW.section
    NOW.step = NOW.step if step is None else step
    NOW.since = time.monotonic()
    NOW.count += 1


@contextmanager
def section(name: str) -> Iterator[None]:
    """A section inside another one, which continues after it."""
    outer = NOW.section
    mark_progress(name)
    try:
        yield
    finally:
        mark_progress(outer)
