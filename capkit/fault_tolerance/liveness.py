"""What this process is doing, for the watchdogs: the current section of the run, and a progress counter.

A live process proves little: other threads run while the main thread hangs. The counter grows only when the main thread
makes progress: after a step, a validation batch, a section.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SECTIONS = ("setup", "step", "rollout", "checkpoint", "evaluation")


@dataclass
class Liveness:
    """Current section and progress of the main thread. `since`: monotonic time of the last increment of `count`."""

    section: str = "setup"
    count: int = 0
    step: int = 0
    since: float = field(default_factory=time.monotonic)


NOW = Liveness()


def mark_progress(section: str | None = None, step: int | None = None) -> None:
    """Count one more sign of progress of the main thread, now in `section` and at optimizer step `step`."""
    assert section is None or section in SECTIONS, section
    NOW.section = section or NOW.section
    NOW.step = NOW.step if step is None else step
    NOW.since = time.monotonic()
    NOW.count += 1


@contextmanager
def section(name: str) -> Iterator[None]:
    """Context of a nested section; the outer one continues afterwards."""
    outer = NOW.section
    mark_progress(name)
    try:
        yield
    finally:
        mark_progress(outer)
