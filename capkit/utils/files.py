"""Atomic writing: files and folders appear complete or not at all."""

import contextlib
import errno
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from capkit.errors import DISK_FULL, UsageError, naming

TEMPORARY = ".*.tmp"  # names of files that a kill during `atomic_path` may leave behind
_ATTEMPTS = 3  # for processes that replace the same folder at once and get in each other's way


def unwritable(folder: Path, error: OSError) -> UsageError:
    remedy = "make room" if error.errno in DISK_FULL else "give permission"
    return UsageError(
        f"expected a writable folder; {folder}: {error.strerror}; {remedy}, or give another path "
        "(run_dir=PATH, out=PATH)"
    )


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], flush: bool = True) -> Iterator[Path]:
    """Context that yields a new file next to `path`; on success it replaces `path`, on an error it is removed.

    With `flush`, content and name are fsynced: after a power failure, the old file or the new one exists. The file gets
    the mode of the user's umask, even if a library creates it privately. An OSError without a filename gets `path`.
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
    """Replace a file by one with this text, fsynced; readers never see it half written."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, ensure_ascii: bool = True) -> None:
    """Replace a file by one with this content as indented JSON, as `write_atomically` does."""
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=ensure_ascii) + "\n")


@contextlib.contextmanager
def atomic_folder(path: Path, is_stale: Callable[[], bool]) -> Iterator[Path]:
    """Context that yields a new folder next to `path`; on success it is renamed to `path`, on an error it is removed.

    An existing `path` is replaced if `is_stale()`; otherwise it stays, and the new folder is discarded.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        folder = scratch / "new"
        folder.mkdir()  # not mkdtemp's own folder, which is private; this one gets the umask's mode
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
    """fsync a file's content, or the names in a folder, so that they survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def apply_umask(folder: Path) -> None:
    """Give every file in a folder the mode that `open` would have given it, since libraries create some privately."""
    mask = os.umask(0o077)  # the umask can only be read by setting it
    os.umask(mask)
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~mask)


def output_file(path: str | Path, key: str = "out") -> Path:
    """Check that a file can be written to this path: it is new, or a regular file, in a writable folder.

    Raises UsageError otherwise; a device, for example, could be written without end.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise UsageError(
            f"{key}={path}: expected a new file or a regular one, got something else; give another {key}=FILE"
        )
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if there != path and not there.is_dir():
        raise UsageError(f"{key}={path}: {there} is not a folder; give another {key}=FILE")
    if not os.access(there, os.W_OK):
        raise UsageError(f"{key}={path}: {there} cannot be written to; give permission, or another {key}=FILE")
    return path


def add_to_file(path: Path, text: str) -> None:
    """Append all of a text to a file. If the disk is full, raise OSError and append nothing."""
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
