"""Batches travel from data workers to their process in shared memory (/dev/shm), of which a container has 64 MB.

Where a batch finds no room there, torch prints that in the worker and sends nothing: the process would wait for ever.
Here the loss is sent in the batch's place, and `check_room` asks at the first batch whether all have room that workers
finish ahead.
"""

import dataclasses
import errno
import multiprocessing.queues
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch._utils import ExceptionWrapper

from capkit.distributed.launcher import ranks_from_outside
from capkit.errors import UsageError, known_error

FOLDER = Path("/dev/shm")
MB = 1e6
_IN_USE = 2  # batches: the one of this step, and the next, which Lightning fetches before it
_FIX = "allow more (docker run --shm-size=8g, or --ipc=host), or take fewer workers: data.num_workers="


class NoRoom(UsageError):
    """Batches do not fit into shared memory. `fit` is how many workers of each process have room; 0 if not known."""

    fit = 0


def free_bytes() -> int | None:
    """Free shared memory; None where it is no folder (macOS)."""
    return shutil.disk_usage(FOLDER).free if FOLDER.is_dir() else None


def check_room(batch: Any, free: int, num_workers: int, ahead: int, num_batches: int) -> None:
    """Raise NoRoom if the batches that workers finish ahead cannot lie in shared memory together.

    Args:
        batch: One of them.
        free: Bytes that were free before the workers began.
        num_workers: Of one process.
        ahead: Batches that a worker finishes ahead.
        num_batches: That there are at all, for one process.
    """
    size, processes = shared_bytes(batch), (ranks_from_outside() or (1, 1))[1]
    held = min(num_batches, num_workers * ahead + _IN_USE)
    needed = size * held * processes
    if needed > free:
        fit = max(0, (free // (size * processes) - _IN_USE) // ahead)
        error = NoRoom(
            f"data.num_workers={num_workers}: expected room in {FOLDER} for {needed / MB:.1f} MB ({held} batches of "
            f"{size / MB:.1f} MB, in each of {processes} processes of this machine), got {free / MB:.1f} MB; "
            f"{_FIX}{fit}"
        )
        error.fit = fit
        raise error


def shared_bytes(value: Any) -> int:
    """Bytes of the tensors in a batch: of named tuples, dataclasses, mappings and lists."""
    if isinstance(value, Tensor):
        return value.nbytes
    if dataclasses.is_dataclass(value):
        return sum(shared_bytes(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, Mapping):
        return sum(map(shared_bytes, value.values()))
    return sum(map(shared_bytes, value)) if isinstance(value, list | tuple) else 0


def send_losses() -> None:
    """In a worker: what cannot be sent becomes an error of the process that waits for it."""
    multiprocessing.queues.Queue._on_queue_feeder_error = _send_loss  # type: ignore[attr-defined]


def _send_loss(queue: Any, error: Exception, lost: Any) -> None:
    """Called in the queue's thread; `lost` is a DataLoader's (number of the batch, batch)."""
    if not isinstance(lost, tuple) or isinstance(lost[1], ExceptionWrapper):
        print(f"a data worker ends, for it cannot send: {error!r}", flush=True)
        os._exit(1)  # its process sees that within seconds
    try:
        raise _told(error)
    except BaseException:
        queue.put((lost[0], ExceptionWrapper(where="in a data worker")))


def _told(error: Exception) -> BaseException:
    found = re.search(r"\((\d+)\)$", str(error))  # torch's: "...: No space left on device (28)"
    number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    if number == errno.ENOSPC:
        free = (free_bytes() or 0) / MB
        return NoRoom(f"a data worker's batch finds no room in {FOLDER} ({free:.1f} MB are free); {_FIX}0 for none")
    return (number and known_error(OSError(number, os.strerror(number)))) or error
