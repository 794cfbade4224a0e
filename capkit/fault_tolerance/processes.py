"""State of another process on this machine (running, stopped or gone), from /proc; and how to kill it."""

import os
import signal
import time
from pathlib import Path


def pid_space() -> str | None:
    """Identifies the machine's boot and PID namespace, within which a process id is unique. None without /proc.

    A host name would not do: containers may share it and still number their own processes.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process; distinguishes processes that got the same id."""
    fields = _fields(pid)
    return None if fields is None else int(fields[19])


def state(pid: int, started: int | None) -> str:
    """One of running, stopped, gone."""
    fields = _fields(pid)
    if fields is None or int(fields[19]) != started or fields[0] in "ZX":
        return "gone"
    return "stopped" if fields[0] in "Tt" else "running"


def _fields(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third on; the second, the name, may contain spaces and parentheses."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def end(pid: int, started: int | None, seconds: float = 1.0) -> None:
    """Kill a process that does not answer. If it enabled faulthandler, it first writes its threads' stacks on SIGABRT.

    faulthandler works even if the GIL is held. A stopped process does not react to SIGABRT; SIGKILL ends it anyway.
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
