"""Two processes, one folder."""

import errno
import json
import os
import subprocess
import sys
import time

import pytest

from capkit.errors import UsageError
from capkit.run import lock as run_lock
from capkit.run.lock import acquire_run_lock

HOLDER = """
import sys, time
from pathlib import Path
from capkit.run.lock import acquire_run_lock
acquire_run_lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds the folder, as part of a SLURM job."""
    environment = {**os.environ, "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_told_who_holds_the_folder_until_it_is_killed(other, tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "WAIT_S", 0.2)
    with pytest.raises(UsageError, match=rf"to have no other writer; process {other.pid} on .* since "):
        acquire_run_lock(tmp_path)
    other.kill()
    other.wait()
    acquire_run_lock(tmp_path)
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_run_that_is_ending_is_waited_for(other, tmp_path):
    subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {other.pid}"])
    started = time.monotonic()
    acquire_run_lock(tmp_path)
    assert time.monotonic() - started > 0.2


def test_a_requeued_job_does_not_wait_for_its_earlier_life(other, tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "WAIT_S", 0.2)
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(UsageError, match="to have no other writer"):
        acquire_run_lock(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    acquire_run_lock(tmp_path)


def test_a_process_does_not_stand_in_its_own_way(tmp_path):
    acquire_run_lock(tmp_path)
    acquire_run_lock(tmp_path)


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch):
    def lockf(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_lock.fcntl, "lockf", lockf)
    with pytest.warns(UserWarning, match="two runs could write to it at once"):
        acquire_run_lock(tmp_path)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="expected a writable folder"):
        acquire_run_lock(tmp_path / "file" / "run")


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[1]", b"7", b'{"pid": '])
def test_a_lock_file_with_anything_in_it_keeps_nobody_out(content, tmp_path):
    (tmp_path / run_lock.NAME).write_bytes(content)
    acquire_run_lock(tmp_path)
    assert json.loads((tmp_path / run_lock.NAME).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[1]", b"7", b'{"pid": '])
def test_what_a_held_lock_file_says_may_be_garbage(content, other, tmp_path, monkeypatch):
    (tmp_path / run_lock.NAME).write_bytes(content)
    monkeypatch.setattr(run_lock, "WAIT_S", 0.0)
    with pytest.raises(UsageError, match=r"process \(unknown\) on \(unknown\)"):
        acquire_run_lock(tmp_path)
