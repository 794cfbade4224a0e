import os
import time

import pytest
from torch.utils import cpp_extension

from capkit.distributed import build_locks
from capkit.distributed.build_locks import clear_stale_locks, is_shared


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """Of an operator's build, under a PyTorch whose locks outlive their owner."""
    monkeypatch.setattr(cpp_extension, "FileBaton", object, raising=False)
    (tmp_path / "shm_comm").mkdir()
    lock = tmp_path / "shm_comm" / "lock"
    lock.touch()
    return lock


def test_a_lock_that_no_process_holds_open_is_removed_and_told(lock, tmp_path, capsys):
    assert clear_stale_locks(tmp_path) == [lock]
    assert not lock.exists() and f"removed {lock}: left behind 0 minutes ago" in capsys.readouterr().out


def test_a_lock_that_is_held_stays(lock, tmp_path, capsys):
    with lock.open():
        assert clear_stale_locks(tmp_path) == []
    assert lock.exists() and capsys.readouterr().out == ""


def test_a_folder_that_machines_share_keeps_a_young_lock(lock, tmp_path, monkeypatch):
    monkeypatch.setattr(build_locks, "is_shared", lambda folder: True)
    assert clear_stale_locks(tmp_path) == []
    os.utime(lock, (time.time() - 700,) * 2)
    assert clear_stale_locks(tmp_path) == [lock]


def test_locks_of_newer_pytorch_stay_for_they_end_with_their_owner(lock, tmp_path, monkeypatch):
    monkeypatch.delattr(cpp_extension, "FileBaton")
    assert clear_stale_locks(tmp_path) == []
    assert lock.exists()


def test_the_innermost_mount_says_whether_a_folder_is_shared(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n/dev/sdb {tmp_path}/local xfs rw 0 0\n"
    )
    assert is_shared(tmp_path / "cache", mounts)
    assert not is_shared(tmp_path / "local" / "cache", mounts)
    assert not is_shared(tmp_path.parent, mounts)
    assert is_shared(tmp_path, tmp_path / "absent")
