"""Stale locks of killed C++ extension builds, on which older PyTorch versions wait forever without a message.

PyTorch compiles C++ operators, such as DeepSpeed's, at first use, each in its own folder below TORCH_EXTENSIONS_DIR. Up
to 2.13, the mere existence of a file `lock` in that folder means that a build is running. capkit itself compiles no
operator, but a user's extension may.
"""

import os
import time
from pathlib import Path

OLD_S = 600.0  # longer than any build takes
SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "fuse", "9p", "cifs", "smb", "afs")


def clear_stale_locks(folder: Path | None = None) -> list[Path]:
    """Remove the locks of builds that no longer run, print a line for each, and return them.

    A running build holds its lock file open, so a lock that no process of this machine holds open is stale. On a file
    system shared between machines, the lock must also be at least 10 minutes old.
    """
    from torch.utils import cpp_extension  # not at the top: its import warns where CUDA's compiler but no GPU is found

    if not hasattr(cpp_extension, "FileBaton"):
        return []  # newer PyTorch uses locks that the kernel releases when their owner dies
    folder = folder or Path(cpp_extension._get_build_directory("x", verbose=False)).parent
    locks = [*folder.glob("lock"), *folder.glob("*/lock")]
    if not locks:
        return []
    held, shared = _open_files(), is_shared(folder)
    stale = []
    for lock in locks:
        age = time.time() - lock.stat().st_mtime
        if str(lock.resolve()) in held or (shared and age < OLD_S):
            continue
        lock.unlink(missing_ok=True)
        print(f"removed {lock}: left behind {age / 60:.0f} minutes ago by a compiler that was killed", flush=True)
        stale.append(lock)
    return stale


def _open_files() -> set[str]:
    """Paths held open by processes of this machine, as far as this user may see them."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            found.add(os.readlink(link))
        except OSError:
            continue
    return found


def is_shared(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether other machines may write to the folder's file system; True if that cannot be determined."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return True
    path = folder.resolve()
    on = [line for line in lines if path.is_relative_to(line[1].replace("\\040", " "))]
    return not on or max(on, key=lambda line: len(line[1]))[2].startswith(SHARED)
