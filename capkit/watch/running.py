"""The watchdog of this process, from its start to the end of the task."""

import functools
from collections.abc import Callable
from typing import Any

from capkit.watch.watchdog import Watchdog, status_of

_RUNNING: list[Watchdog] = []


def start(watchdog: Watchdog) -> None:
    watchdog.start()
    _RUNNING.append(watchdog)


def tell_failure(error: BaseException) -> None:
    """Before this rank goes down: all ranks learn of it. An exit that all ranks agreed on is no failure."""
    for watchdog in _RUNNING:
        if watchdog.world_size > 1 and isinstance(error, Exception | KeyboardInterrupt):
            watchdog.failed(error)


def ends_all_ranks(task: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A task that trains on several ranks: when one of them raises, all end, and its error alone is told.

    Errors from before the ranks know each other are left to the caller.
    """

    @functools.wraps(task)
    def run(cfg: Any) -> Any:
        try:
            return task(cfg)
        except (Exception, KeyboardInterrupt) as error:
            tell_failure(error)
            if any(watchdog.has_told for watchdog in _RUNNING):
                raise SystemExit(status_of(error)) from None
            raise
        finally:
            while _RUNNING:
                _RUNNING.pop().stop()

    return run
