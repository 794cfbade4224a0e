"""The error type for wrong input, and errors that end a run without being anyone's mistake.

All exit statuses are listed in docs/faults.md.
"""

import contextlib
import difflib
import errno
import itertools
import os
import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

Known = TypeVar("Known", "UsageError", "RunFailure")

_PACKAGE = str(Path(__file__).parent) + os.sep


class _Told(Exception):
    """An error whose message says all: a notebook shows it below the user's own lines, the command line alone."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in the place of a traceback."""
        frames = traceback.extract_tb(self.__traceback__)
        own = itertools.takewhile(lambda frame: not frame.filename.startswith(_PACKAGE), frames)
        lines = traceback.format_list([frame for frame in own if "/IPython/" not in frame.filename])
        return [*(line.rstrip() for line in lines), f"{type(self).__name__}: {self}"]


class UsageError(_Told, ValueError):
    """Wrong input from a user or a config. The message says what was expected, what was given, and how to fix it.

    The command line prints only the message, without a traceback, and exits with status 2.
    """


# Exit statuses; docs/faults.md says what helps.
USAGE_STATUS = 2
STOPPED_STATUS = 75  # EX_TEMPFAIL: try again later
LOST_STATUS = 81
MEMORY_STATUS = 82
DIVERGED_STATUS = 83
NOTHING_TO_LEARN_STATUS = 84
BUDGET_STATUS = 85
NO_ANSWERS_STATUS = 86
INTERRUPTED_STATUS = 130  # the shells' status for SIGINT


class RunFailure(_Told, RuntimeError):
    """A run that must end, reported in one message without a traceback; `status` is its exit status."""

    status = 1


class OutOfMemory(RunFailure):
    """A step ran out of memory; the run's next attempt uses smaller micro-batches if it can."""

    status = MEMORY_STATUS


class Diverged(RunFailure):
    """Too many consecutive steps with an unusable loss or gradient."""

    status = DIVERGED_STATUS


class NothingToLearn(RunFailure):
    """Too many consecutive steps in which all captions of an image have the same reward."""

    status = NOTHING_TO_LEARN_STATUS


class BudgetSpent(RunFailure):
    """The next question to a model could cost more than is left of the run's budget."""

    status = BUDGET_STATUS


class NoAnswers(RunFailure):
    """Too many of the first questions to a model have no usable answer."""

    status = NO_ANSWERS_STATUS


class ServerFailed(RunFailure):
    """What a step asks cannot be asked, or answers wrongly; on all ranks, before the step changed anything."""

    status = NO_ANSWERS_STATUS


class ReaderAway(ServerFailed):
    """What a reward asks questions of cannot be asked."""


DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


def known_error(error: BaseException) -> UsageError | RunFailure | None:
    """The error to report in one message without a traceback; None for an unexpected error.

    A full disk, a folder that cannot be written, too many open files, or a data worker that is gone are recognised
    wherever they occur.
    """
    if isinstance(error, RunFailure):
        return _without_workers_traceback(error)
    found = usage_error_behind(error)
    if found is not None:
        return _without_workers_traceback(found)
    return _disk_error_behind(error) or _gone_worker(error)


def _without_workers_traceback(error: Known) -> Known:
    """The error as a DataLoader's worker raised it: torch puts the worker's traceback in front of its message."""
    kind = type(error)
    _, mark, told = str(error).rpartition(f"\n{kind.__module__}.{kind.__qualname__}: ")
    return kind(told.strip()) if mark and str(error).startswith("Caught ") else error


def _gone_worker(error: BaseException) -> RunFailure | None:
    """A data worker that was killed, in torch's words: "DataLoader worker (pid 1) is killed by signal: Killed."."""
    told = str(error)
    if not isinstance(error, RuntimeError) or not told.startswith("DataLoader worker (pid"):
        return None
    return RunFailure(
        f"{told.strip().rstrip('.')}: perhaps host memory ran out (dmesg, free -h); take fewer workers "
        "(data.num_workers) or smaller batches, then start the same command again"
    )


def exit_status(known: UsageError | RunFailure) -> int:
    return known.status if isinstance(known, RunFailure) else USAGE_STATUS


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Add a file name to an OSError raised in the block: errors of writing to an open file do not name it."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _disk_error_behind(error: BaseException | None) -> UsageError | RunFailure | None:
    """The disk or permission error behind an exception; Rust libraries give its number in their message only."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (told := re.search(r"\(os error (\d+)\)", str(error))):
            number = int(told[1])
        name = getattr(error, "filename", None)
        if number in DISK_FULL:
            where = f"{name} cannot be written" if name else "a file cannot be written"
            return RunFailure(
                f"{where}: {os.strerror(number)}; make room (df -h, df -i) or give a folder on another disk "
                "(run_dir=PATH, out=PATH), then start the same command again"
            )
        if number in (errno.EMFILE, errno.ENFILE):
            return RunFailure(
                f"{name or 'a file or a pipe'} cannot be opened: {os.strerror(number)}; allow more (ulimit -n 65536), "
                "or take fewer workers (num_workers of the data)"
            )
        if number in _CLOSED and name:
            return UsageError(
                f"{name}: {os.strerror(number)}; give permission, or another path (run_dir=PATH, out=PATH)"
            )
        error = error.__cause__
    return None


def usage_error_behind(error: BaseException | None) -> UsageError | None:
    """The UsageError behind an exception: Hydra wraps those raised by constructors."""
    while error is not None and not isinstance(error, UsageError):
        error = error.__cause__
    return error


def did_you_mean(name: str, valid: Iterable[str], prefix: str = "") -> str:
    """A phrase that suggests the nearest valid name, after `prefix`; lists all valid names if none is near."""
    valid = sorted(valid)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return f"did you mean {prefix + near[0]!r}?" if near else f"valid names: {', '.join(valid) or 'none'}"


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise UsageError if the setting `name` is none of its choices."""
    choices = list(choices)
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        fix = f"did you mean {near[0]!r}?" if near else "give one of them"
        raise UsageError(f"expected {name} to be one of {', '.join(choices)}; got {value!r}; {fix}")
