"""Groups of processes that do what they are told, all ranks at once, so that several runs can take turns on GPUs."""

import multiprocessing
import os
import statistics
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from benchmarks.faults.ranks import as_torchrun, free_port
from capkit.distributed.collectives import world_size
from capkit.distributed.cost_model import FLOAT
from capkit.testing.distributed import PRELOADED

COLLECTIVE_S = 120  # after which a rank that waits for another one gives up


class GroupFailed(RuntimeError):
    """A rank failed, ended or was late; the whole group is gone."""


class Group:
    """`num_ranks` processes, each with a GPU of its own (NCCL), or on the CPU (gloo); one process has no process group.

    Functions are those of modules, and what they keep between two calls they keep in their module.
    """

    def __init__(self, num_ranks: int, gpu: bool, timeout_s: float | int = 180) -> None:
        # A fork cannot use a GPU that its parent has looked at; where there is none, it saves the imports.
        context: Any = multiprocessing.get_context("spawn" if gpu else "forkserver")
        if not gpu:
            context.set_forkserver_preload(PRELOADED)
        self.timeout_s, self._ends, self._processes, port = timeout_s, [], [], str(free_port())
        for rank in range(num_ranks):
            ours, theirs = context.Pipe()
            environment = as_torchrun(rank, num_ranks, port) if num_ranks > 1 else {}
            self._processes.append(context.Process(target=_serve, args=(theirs, environment, gpu), daemon=True))
            self._processes[-1].start()
            theirs.close()
            self._ends.append(ours)

    @property
    def num_ranks(self) -> int:
        return len(self._processes)

    def tell(self, function: Callable[..., Any], *args: Any) -> None:
        for end in self._ends:
            end.send((function, args))

    def answers(self) -> list[Any]:
        """Of all ranks to what they were told. Raises GroupFailed where one fails or is late, and ends the group."""
        deadline, left = time.monotonic() + self.timeout_s, dict(enumerate(self._ends))
        found: dict[int, Any] = {}
        while left:  # whichever answers first: a rank that failed leaves the others waiting for it
            ready = wait(list(left.values()), max(0.0, deadline - time.monotonic()))
            if not ready:
                self._fail(f"ranks {sorted(left)} did not answer within {self.timeout_s:.0f} s")
            for rank in [rank for rank, end in left.items() if end in ready]:
                try:
                    is_fine, answer = left.pop(rank).recv()
                except (EOFError, ConnectionError):
                    is_fine, answer = False, "its process ended"
                if not is_fine:
                    self._fail(f"rank {rank} of {self.num_ranks}: {answer}")
                found[rank] = answer
        return [found[rank] for rank in range(self.num_ranks)]

    def _fail(self, message: str) -> NoReturn:
        self.kill()
        raise GroupFailed(message)

    def ask(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        self.tell(function, *args)
        return self.answers()

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def end(self) -> None:
        """Ends processes that nothing was asked of any more; kills those that do not end."""
        for process, end in zip(self._processes, self._ends, strict=True):
            if process.is_alive():
                end.send(None)
        for process in self._processes:
            process.join(20)
        self.kill()


def _serve(end: Connection, environment: dict[str, str], gpu: bool) -> None:
    os.environ.update(environment)
    device = int(environment.get("LOCAL_RANK", 0))
    if gpu:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    if environment:
        dist.init_process_group("nccl" if gpu else "gloo", timeout=timedelta(seconds=COLLECTIVE_S))
    while (told := end.recv()) is not None:
        function, args = told
        try:
            end.send((True, function(*args)))
        except Exception:
            end.send((False, traceback.format_exc()))
    os._exit(0)  # without waiting for threads of libraries, or for the other ranks


def device_of(gpu: bool) -> str:
    return "cuda" if gpu else "cpu"


def all_reduce_gb(numbers: int, device: str, tries: int = 15) -> float:
    """GB/s that a rank sends in an all-reduce of so many float32: the median."""
    tensor, times = torch.ones(numbers, device=device), []
    for _ in range(tries):
        dist.barrier()
        _wait(device)
        begun = time.perf_counter()
        dist.all_reduce(tensor)
        _wait(device)
        times.append(time.perf_counter() - begun)
    return 2 * (world_size() - 1) / world_size() * FLOAT * numbers / statistics.median(times) / 1e9


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
