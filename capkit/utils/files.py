"""Files that are whole or absent."""

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from capkit.errors import DISK_FULL, UsageError, naming

TEMPORARY = ".*.tmp"  # what a kill may leave of `atomic_path`
_ATTEMPTS = 3  # of several processes that replace one folder, each may be in the way of another once


def unwritable(folder: Path, error: OSError) -> UsageError:
    remedy = "make room" if error.errno in DISK_FULL else "give permission"
    return UsageError(
        f"run_dir must be a writable folder; {folder}: {error.strerror}; {remedy}, or give another run_dir=PATH"
    )


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], flush: bool = True) -> Iterator[Path]:
    """A new file beside `path`, for the block to write; it replaces `path` when the block ends well, else is removed.

    With `flush`, content and name are on the disk when the block ends: a power cut leaves the old file or the new one.
    The file gets the mode that the user's umask gives, also where a library makes it by way of a private one. An
    OSError without a filename gets that of `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with naming(path):
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)
            if flush:
                flush_to_disk(temporary)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if flush:
        flush_to_disk(path.parent)


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file by one with this text, which is on the disk afterwards; never a half-written file."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def atomic_folder(path: Path, is_stale: Callable[[], bool]) -> Iterator[Path]:
    """A new folder beside `path`, for the block to fill; it gets that name when the block ends well, else is removed.

    What stands at `path` by then is replaced where it `is_stale`; otherwise it stays, and the new folder is dropped.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        folder = scratch / "new"
        folder.mkdir()  # inside, since mkdtemp's own folder is private and this one gets the umask's mode
        yield folder
        for attempt in range(_ATTEMPTS):
            try:
                folder.rename(path)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
                if not is_stale():
                    return
                if attempt == _ATTEMPTS - 1:
                    raise
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                path.rename(scratch / f"old-{attempt}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """Makes the content of a file, or the names in a folder, outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def apply_umask(folder: Path) -> None:
    """Gives every file in a folder the mode that `open` would have given it: libraries make some private."""
    mask = os.umask(0o077)  # the only way to ask for it
    os.umask(mask)
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~mask)


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
