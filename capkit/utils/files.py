"""Files that are whole or absent."""

import contextlib
import os
from pathlib import Path

from capkit.errors import DISK_FULL, UsageError, naming


def unwritable(folder: Path, error: OSError) -> UsageError:
    remedy = "make room" if error.errno in DISK_FULL else "give permission"
    return UsageError(
        f"run_dir must be a writable folder; {folder}: {error.strerror}; {remedy}, or give another run_dir=PATH"
    )


def write_atomically(path: Path, text: str) -> None:
    """Writes to a temporary name beside `path`, flushes to disk, then renames: never a half-written file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path), temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def output_file(path: str | Path, key: str = "out") -> Path:
    """A path that a file can be written to: it is new, or a regular file, in a folder that takes files.

    Raises UsageError otherwise: a device could be filled or read without end.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise UsageError(
            f"{key}={path}: expected a new file or a regular one, got something else; give another {key}=FILE"
        )
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if there != path and not there.is_dir():
        raise UsageError(f"{key}={path}: {there} is no folder; give another {key}=FILE")
    if not os.access(there, os.W_OK):
        raise UsageError(f"{key}={path}: {there} cannot be written to; give permission, or another {key}=FILE")
    return path


def add_to_file(path: Path, text: str) -> None:
    """Adds text to the end of a file, all of it; where the disk is full OSError is raised and none of it is added."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        try:
            left = text.encode()
            with naming(path):
                while left:
                    left = left[os.write(descriptor, left) :]
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
