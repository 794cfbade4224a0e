"""Times of several ways to do the same work, in turn: each round runs every side once, so all see the same host."""

import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch

# Kineto's way with captured graphs: CUPTI that was taken down and set up again crashes or hangs in a later profile.
os.environ.update(TEARDOWN_CUPTI="0", DISABLE_CUPTI_LAZY_REINIT="1")

Work = Callable[[], Any]


@dataclass
class Side:
    """One way. Milliseconds are medians over rounds; busy time, kernels and waits are of one more call."""

    name: str
    ms: float
    fastest: float
    slowest: float
    ratio: float  # median over rounds of this side's time over capkit's
    gib: float  # most GPU memory of a call
    first_s: float  # the first call: compilation and capture are in it
    busy_ms: float | None = None
    kernels: int | None = None
    host_waits: int | None = None
    out_of_memory: bool = False  # then there are no numbers
    per_second: float | None = None  # captions
    share: float | None = None  # of the rate of a large matrix product
    cpu_s: float | None = None  # of one more call, where it is a process of its own

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module gives, called in a process of its own.

    Raises BrokenProcessPool where the process dies.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def milliseconds(work: Work, device: str) -> float:
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return 1000 * (time.perf_counter() - start)


def host_waits(work: Work) -> int:
    """How often the host waits for the GPU, as far as torch knows."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    # Not torch's own notice that this way of looking is young, which comes with the first call.
    return sum("called a synchronizing" in str(warning.message) for warning in told)


def gpu_busy(work: Work) -> tuple[float, int]:
    """Milliseconds of kernels, and their number."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    events = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return sum(event.time_range.elapsed_us() for event in events) / 1000, len(events)


def matmul_rate(device: str, width: int) -> float:
    """Operations a second of a bf16 product of square matrices."""
    one, other = (torch.randn(width, width, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = [milliseconds(lambda: one @ other, device) for _ in range(13)][3:]
    return 2 * width**3 / (statistics.median(times) / 1000)


def in_turn(
    sides: Mapping[str, Work],
    rounds: int,
    device: str,
    warm_up: int = 3,
    held: Mapping[str, int] | None = None,
) -> list[Side]:
    """`sides["capkit"]` is what the others are compared with.

    `held`: bytes on the GPU that are each side's own already; memory is then counted without the other sides'.
    """
    first, peaks = {}, {}
    for name, work in sides.items():
        others = 0
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            others = 0 if held is None else torch.cuda.memory_allocated() - held[name]
        first[name] = milliseconds(work, device) / 1000
        for _ in range(warm_up):
            work()
        peaks[name] = (torch.cuda.max_memory_allocated() - others) / 2**30 if device == "cuda" else 0.0
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            times[name].append(milliseconds(work, device))
    found = []
    for name, work in sides.items():
        ratios = [other / own for other, own in zip(times[name], times["capkit"], strict=True)]
        side = Side(
            name,
            statistics.median(times[name]),
            min(times[name]),
            max(times[name]),
            statistics.median(ratios),
            peaks[name],
            first[name],
        )
        if device == "cuda":
            side.busy_ms, side.kernels = gpu_busy(work)
            side.host_waits = host_waits(work)
        found.append(side)
    return found
