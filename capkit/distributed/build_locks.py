"""Locks that a killed compiler left behind: older PyTorch waits on them for ever, without a word.

PyTorch compiles C++ operators of DeepSpeed and others at their first use, each in a folder of its own below
TORCH_EXTENSIONS_DIR. Up to 2.13 the mere existence of the folder's file `lock` says that somebody is at it. Nothing of
capkit compiles such operators, but what a user adds may.
"""

import os
import time
from pathlib import Path

OLD_S = 600.0  # no operator takes as long
SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "fuse", "9p", "cifs", "smb", "afs")


def clear_stale_locks(folder: Path | None = None) -> list[Path]:
    """Removes and returns the locks of builds that nobody is at; says so.

    The owner of a lock holds it open: one that no process of this machine does is stale. Where the folder is shared
    between machines, it also has to be 10 minutes old.
    """
    from torch.utils import cpp_extension  # not at the top: its import warns where CUDA's compiler but no GPU is found

    if not hasattr(cpp_extension, "FileBaton"):
        return []  # newer PyTorch's locks end with their owner
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
    """Paths that processes of this machine hold open, as far as this user may see."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            found.add(os.readlink(link))
        except OSError:
            continue
    return found


def is_shared(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether the folder is on a file system that other machines may write to; True where nobody can tell."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return True
    path = folder.resolve()
    on = [line for line in lines if path.is_relative_to(line[1].replace("\\040", " "))]
    return not on or max(on, key=lambda line: len(line[1]))[2].startswith(SHARED)
