"""The error type that a user or a config can cause, and the ends of a run that are nobody's mistake.

All exit statuses stand in docs/faults.md.
"""

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """Wrong input from a user or a config: the message says what was wanted, what came and how to fix it.

    The command line prints the message alone, without a traceback, and exits with status 2.
    """


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


def usage_error_behind(error: BaseException | None) -> UsageError | None:
    """The user's error behind an exception: Hydra wraps those that a constructor raises."""
    while error is not None and not isinstance(error, UsageError):
        error = error.__cause__
    return error


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A sentence that names the nearest valid name, or lists the valid ones when none is near."""
    valid = sorted(valid)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"valid names: {', '.join(valid) or 'none'}"
