"""Keeps what libraries print about themselves off a user's screen."""

import logging
import warnings


def one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as it is shown: without the place in the source that raised it, which is often a library's."""
    return f"{'warning' if issubclass(category, UserWarning) else category.__name__}: {message}\n"


def quiet_libraries() -> None:
    """Lightning's device list, tips and "stopped" lines, and warnings that a user can do nothing about.

    The other warnings are shown as `one_line`.
    """
    warnings.formatwarning = one_line
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
