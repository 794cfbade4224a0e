"""One live run to a folder: two that write to it would delete each other's checkpoints and mix their rows."""

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
WAIT_S = 10.0  # for a run that is ending
TAKEN = (errno.EACCES, errno.EAGAIN)
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def acquire_run_lock(folder: Path) -> None:
    """Makes this process the only one whose run writes to `folder`, until it ends, in whatever way it does.

    The kernel keeps the lock (fcntl(2), advisory record locks): a kill leaves none behind, and processes forked from
    this one do not have it. Other machines see it where the shared file system has locks; one without is warned of.
    Raises UsageError where another process still has it after WAIT_S, or where the folder cannot be written.
    """
    path = folder / NAME
    end = time.monotonic() + WAIT_S
    while not _take(path):
        holder = _holder(path)
        if _is_earlier_life(holder):
            path.unlink(missing_ok=True)
        elif time.monotonic() > end:
            raise UsageError(
                f"one run at a time can write to {folder}; process {holder.get('pid', '(unknown)')} on "
                f"{holder.get('host', '(unknown)')} is at it since {holder.get('since', '(unknown)')}; wait for it or "
                f"stop it, or give another run_dir=PATH (where that machine is gone for good: delete {path})"
            )
        else:
            time.sleep(0.1)


def _take(path: Path) -> bool:
    """Whether this process has the lock now. Its descriptor is never closed: that would give the lock up."""
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
        warnings.warn(f"nothing keeps two runs from writing to {path.parent} at once: {error}", stacklevel=3)
    about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.ctime(), **_slurm_job()}
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(about).encode())
    except OSError as error:
        raise unwritable(path.parent, error) from error
    return True


def _holder(path: Path) -> dict[str, Any]:
    try:
        holder = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):  # it is about to write it
        return {}
    return holder if isinstance(holder, dict) else {}


def _slurm_job() -> dict[str, Any]:
    if "SLURM_JOB_ID" not in os.environ:
        return {}
    return {"job": os.environ["SLURM_JOB_ID"], "restarts": int(os.environ.get("SLURM_RESTART_COUNT", 0))}


def _is_earlier_life(holder: dict[str, Any]) -> bool:
    """Whether the holder was this SLURM job before it was requeued: it ended, though its machine could not say so."""
    job = _slurm_job()
    return bool(job) and holder.get("job") == job["job"] and holder.get("restarts", 0) < job["restarts"]
