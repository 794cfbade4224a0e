"""The mode that the user's umask gives, for files that libraries make by way of a private temporary one."""

import os
from pathlib import Path


def as_umask_says(path: Path) -> None:
    """Gives a file, or every file in a folder, the mode that `open` would have given it."""
    mask = os.umask(0o077)  # the only way to ask for it
    os.umask(mask)
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~mask)
