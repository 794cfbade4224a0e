"""Removing folders that capkit wrote, but nothing that a user put there or that merely has such a name."""

import fnmatch
import shutil
from collections.abc import Sequence
from pathlib import Path


def holds_only(folder: Path, patterns: Sequence[str]) -> bool:
    """Whether this is a folder (not a link to one) in which every name, at any depth, matches one of the patterns."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return all(any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns) for path in folder.rglob("*"))


def remove_own(folder: Path, patterns: Sequence[str]) -> bool:
    """Remove a folder if it holds only files that match these patterns; returns whether it is gone.

    Raises OSError if it cannot be removed.
    """
    if holds_only(folder, patterns):
        shutil.rmtree(folder)
    return not folder.is_symlink() and not folder.exists()
