"""Lock on a run folder: two runs writing to it would delete each other's checkpoints and mix their rows."""

import errno
import fcntl
import json
import os
import socket
import time
import warnings
from pathlib import Path
from typing import Any

from capkit.errors import UsageError
from capkit.utils.files import unwritable

NAME = ".lock"
WAIT_S = 10.0  # for another run that is about to end
TAKEN = (errno.EACCES, errno.EAGAIN)
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_HELD: dict[Path, list[int]] = {}  # descriptors of this process's locks


def acquire_run_lock(folder: Path) -> None:
    """Make this process the only writer to `folder` until it ends, however it ends.

    The lock is the kernel's (fcntl(2), advisory record locks): it is released when the process is killed, and forked
    processes do not inherit it. Other machines see it if the shared file system supports locks; otherwise a warning is
    printed. Raises UsageError if another process still holds it after WAIT_S, or if the folder cannot be written.
    """
    path = folder / NAME
    end = time.monotonic() + WAIT_S
    while not _take(path):
        holder = _holder(path)
        if _is_earlier_life(holder):
            path.unlink(missing_ok=True)
        elif time.monotonic() > end:
            raise UsageError(
                f"expected {folder} to have no other writer; process {holder.get('pid', '(unknown)')} on "
                f"{holder.get('host', '(unknown)')} holds it since {holder.get('since', '(unknown)')}; wait for it, "
                f"stop it, or give another run_dir=PATH (if that machine is gone for good, delete {path})"
            )
        else:
            time.sleep(0.1)


def release_run_lock(folder: Path) -> None:
    """Let other processes write to `folder` again, where this one goes on after its run."""
    for descriptor in _HELD.pop((folder / NAME).absolute(), []):
        os.close(descriptor)


def _take(path: Path) -> bool:
    """Try to take the lock. Its descriptor stays open, since closing it releases the lock."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    except OSError as error:
        raise unwritable(path.parent, error) from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in TAKEN:
            os.close(descriptor)
            return False
        if error.errno not in WITHOUT_LOCKS:
            raise
        warnings.warn(
            f"{path.parent} is on a file system without locks: two runs could write to it at once ({error})",
            stacklevel=3,
        )
    about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.ctime(), **_slurm_job()}
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(about).encode())
    except OSError as error:
        raise unwritable(path.parent, error) from error
    _HELD.setdefault(path.absolute(), []).append(descriptor)
    return True


def _holder(path: Path) -> dict[str, Any]:
    try:
        holder = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):  # the holder is about to write it
        return {}
    return holder if isinstance(holder, dict) else {}


def _slurm_job() -> dict[str, Any]:
    if "SLURM_JOB_ID" not in os.environ:
        return {}
    return {"job": os.environ["SLURM_JOB_ID"], "restarts": int(os.environ.get("SLURM_RESTART_COUNT", 0))}


def _is_earlier_life(holder: dict[str, Any]) -> bool:
    """Whether the holder is this SLURM job before a requeue: it ended, but its machine did not release the lock."""
    job = _slurm_job()
    return bool(job) and holder.get("job") == job["job"] and holder.get("restarts", 0) < job["restarts"]
