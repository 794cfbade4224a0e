"""Removing folders that capkit wrote: what a user put there, or named alike, is never removed."""

import fnmatch
import shutil
from collections.abc import Sequence
from pathlib import Path


def holds_only(folder: Path, patterns: Sequence[str]) -> bool:
    """Whether this is a folder, no link to one, and every name in it, at any depth, matches one of the patterns."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    return all(any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns) for path in folder.rglob("*"))


def remove_own(folder: Path, patterns: Sequence[str]) -> bool:
    """Removes a folder that holds only what these patterns name, files of capkit's; whether it is gone now.

    Raises OSError where it cannot be removed.
    """
    if holds_only(folder, patterns):
        shutil.rmtree(folder)
    return not folder.is_symlink() and not folder.exists()
