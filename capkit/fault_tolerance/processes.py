"""Whether another process of this machine lives, runs or is stopped, from /proc; and how to end it."""

import os
import signal
import time
from pathlib import Path


def pid_space() -> str | None:
    """Where a process id means the same process: one boot of one machine, one namespace. None where there is no /proc.

    A host's name would not do: containers may share it and number their processes each for itself.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process: with it a process id that was given again is told apart."""
    fields = _fields(pid)
    return None if fields is None else int(fields[19])


def state(pid: int, started: int | None) -> str:
    """running, stopped or gone."""
    fields = _fields(pid)
    if fields is None or int(fields[19]) != started or fields[0] in "ZX":
        return "gone"
    return "stopped" if fields[0] in "Tt" else "running"


def _fields(pid: int) -> list[str] | None:
    """From the third column of /proc/PID/stat on; the second, the name, may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def end(pid: int, started: int | None, seconds: float = 1.0) -> None:
    """Ends a process that does not answer. faulthandler, where it is enabled, first writes the stacks of its threads.

    That works without the interpreter's lock, and not in a stopped process, which SIGKILL ends all the same.
    """
    deadline = time.monotonic() + seconds
    for number in (signal.SIGABRT, signal.SIGKILL):
        if state(pid, started) == "gone":
            return
        try:
            os.kill(pid, number)
        except OSError:
            return
        while time.monotonic() < deadline and state(pid, started) == "running":
            time.sleep(0.05)
