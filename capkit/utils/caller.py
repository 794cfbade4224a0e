"""Warnings that point at the user's own line, however deep in capkit they are given."""

import inspect
import warnings

_INNER = ("capkit.", "torch.", "jaxtyping.")  # the others wrap functions that they decorate


def warn_caller(message: str) -> None:
    """Warn at the line outside of capkit that called into it."""
    here = inspect.currentframe()
    frame, level = None if here is None else here.f_back, 2
    while frame is not None and frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_INNER):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
