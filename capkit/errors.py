"""The error type that a user or a config can cause, and the ends of a run that are nobody's mistake.

All exit statuses stand in docs/faults.md.
"""

import contextlib
import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path


class UsageError(ValueError):
    """Wrong input from a user or a config: the message says what was wanted, what came and how to fix it.

    The command line prints the message alone, without a traceback, and exits with status 2.
    """


USAGE_STATUS = 2
LOST_STATUS = 81
MEMORY_STATUS = 82
DIVERGED_STATUS = 83
NOTHING_TO_LEARN_STATUS = 84


class RunFailure(RuntimeError):
    """A run that must end, told in one message without a traceback; `status` is its exit status."""

    status = 1


class OutOfMemory(RunFailure):
    """A step does not fit into memory; a new attempt of the run takes smaller micro-batches where it can."""

    status = MEMORY_STATUS


class Diverged(RunFailure):
    """Too many steps in a row whose loss or gradient cannot be used."""

    status = DIVERGED_STATUS


class NothingToLearn(RunFailure):
    """Too many steps in a row whose rewards are the same for all captions of an image."""

    status = NOTHING_TO_LEARN_STATUS


DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


def known_error(error: BaseException) -> UsageError | RunFailure | None:
    """What is told in one message without a traceback; None for an error that nobody foresaw.

    A disk that is full, or a folder that takes no files, is known wherever it is met, in whatever is written.
    """
    if isinstance(error, RunFailure):
        return error
    return usage_error_behind(error) or _disk_error_behind(error)


def exit_status(known: UsageError | RunFailure) -> int:
    return known.status if isinstance(known, RunFailure) else USAGE_STATUS


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Has an OSError of the block name this file: those of writing to an open one do not say which it is."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _disk_error_behind(error: BaseException | None) -> UsageError | RunFailure | None:
    """The error that a disk or a folder is the cause of; libraries in Rust tell its number in their message."""
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
        if number in _CLOSED and name:
            return UsageError(
                f"{name}: {os.strerror(number)}; give permission, or another path (run_dir=PATH, out=PATH)"
            )
        error = error.__cause__
    return None


def usage_error_behind(error: BaseException | None) -> UsageError | None:
    """The user's error behind an exception: Hydra wraps those that a constructor raises."""
    while error is not None and not isinstance(error, UsageError):
        error = error.__cause__
    return error


def did_you_mean(name: str, valid: Iterable[str], prefix: str = "") -> str:
    """A sentence that names the nearest valid name behind `prefix`, or lists the valid ones when none is near."""
    valid = sorted(valid)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return f"did you mean {prefix + near[0]!r}?" if near else f"valid names: {', '.join(valid) or 'none'}"
