"""Keeps what libraries print about themselves off a user's screen."""

import logging
import sys
import warnings
from typing import TextIO

_shown: set[str] = set()


def show_once(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Shows a warning as one line, without the place in the source (often a library's), and each text once.

    Python itself forgets what it has shown whenever a library changes the filters.
    """
    text = f"{'warning' if issubclass(category, UserWarning) else category.__name__}: {message}\n"
    if text not in _shown:
        _shown.add(text)
        (file or sys.stderr).write(text)


def quiet_libraries() -> None:
    """Lightning's device list, tips and "stopped" lines, and warnings that a user can do nothing about.

    The other warnings are shown by `show_once`.
    """
    warnings.showwarning = show_once
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (
        r".*isinstance\(treespec, LeafSpec\).*",
        r".*does not have many workers.*",
        r".*You're resuming from a checkpoint that ended before the epoch ended.*",
        r".*You defined a `validation_step` but have no.*",
        r".*It is recommended to use `self.log.*sync_dist=True.*",
        r".*module\(s\) in eval mode at the start of training.*",
        r".*Checkpoint directory .* exists.*",
    ):
        warnings.filterwarnings("ignore", message)
