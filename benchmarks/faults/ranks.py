"""The processes of a run, started, watched and hurt from outside.

A start takes ten seconds of imports. Here a server that has imported everything forks each rank, and the rank runs the
command as `torchrun` would have it run: the same `main`, the same variables of its environment, nothing shared.
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
PRELOAD = ["benchmarks.faults.preload"]


def rank_main(words: Sequence[str], log: Path, environment: dict[str, str]) -> None:
    """In the forked process: the command line, with its output in a file."""
    os.setsid()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    from capkit.cli import main

    sys.argv = ["train.py", *words]
    sys.exit(main(list(words)))


class Ranks:
    """One start of a run's command in `num_ranks` processes, each with a log of its own."""

    def __init__(self, words: Sequence[str], num_ranks: int, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        CONTEXT.set_forkserver_preload(PRELOAD)
        port = str(free_port())
        self.logs = [logs / f"{rank}.log" for rank in range(num_ranks)]
        self.started_at = time.time()
        self.processes = []
        for rank, log in enumerate(self.logs):
            environment = {} if num_ranks == 1 else as_torchrun(rank, num_ranks, port)
            process = CONTEXT.Process(target=rank_main, args=(list(words), log, environment))
            process.start()
            self.processes.append(process)

    @property
    def number(self) -> int:
        return len(self.processes)

    def running(self) -> list[int]:
        return [rank for rank, process in enumerate(self.processes) if process.is_alive()]

    def send(self, number: signal.Signals, ranks: Sequence[int] | None = None) -> None:
        for rank in range(self.number) if ranks is None else ranks:
            if self.processes[rank].is_alive():
                os.kill(self.processes[rank].pid, number)  # type: ignore[arg-type]

    def wait(self, timeout_s: float | int, ranks: Sequence[int] | None = None) -> bool:
        """Whether these, or all, ended in time."""
        end = time.monotonic() + timeout_s
        waited = [self.processes[rank] for rank in (range(self.number) if ranks is None else ranks)]
        for process in waited:
            process.join(max(0.0, end - time.monotonic()))
        return not any(process.is_alive() for process in waited)

    def end(self) -> None:
        """Leaves no process."""
        self.send(signal.SIGKILL)
        for process in self.processes:
            process.join()

    @property
    def exit_codes(self) -> list[int | None]:
        return [process.exitcode for process in self.processes]

    def output(self) -> str:
        return "\n".join(log.read_text(errors="replace") for log in self.logs if log.exists())


def as_torchrun(rank: int, num_ranks: int, port: str) -> dict[str, str]:
    """The variables that torchrun sets for a rank of one machine."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "ROLE_RANK": str(rank),
        "WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks), "GROUP_WORLD_SIZE": "1",
        "ROLE_WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        "TORCHELASTIC_RUN_ID": f"faults-{port}", "TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0",
    }  # fmt: skip


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
