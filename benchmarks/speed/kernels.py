"""What the GPU did in a step: milliseconds of its kernels and of NCCL's, and how much of NCCL's ran beside others."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.autograd import DeviceType

Span = tuple[float, float]


@dataclass(frozen=True)
class Kernels:
    """Milliseconds in which at least one kernel of a kind ran. NCCL's wait for the other ranks within their kernels."""

    step_ms: float
    launches: int
    busy_ms: float  # of all but NCCL's
    nccl: int
    nccl_ms: float
    hidden_ms: float  # of NCCL's, beside others

    @property
    def hidden(self) -> float:
        """The share of NCCL's time that runs beside other kernels."""
        return self.hidden_ms / self.nccl_ms if self.nccl_ms else 0.0

    def as_row(self) -> dict[str, Any]:
        return {**asdict(self), "hidden": self.hidden}


def kernels_of(work: Callable[[], Any]) -> Kernels:
    """One call under the profiler, which takes its time: compare milliseconds of kernels, not of the step."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        begun = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begun
    events = [event for event in profile.events() if event.device_type == DeviceType.CUDA]
    spans = [(event.name, (event.time_range.start / 1000, event.time_range.end / 1000)) for event in events]
    return sort(1000 * seconds, spans)


def sort(step_ms: float, spans: Sequence[tuple[str, Span]]) -> Kernels:
    """By name and (start, end) in milliseconds."""
    nccl = [span for name, span in spans if "nccl" in name.lower()]
    others = [span for name, span in spans if "nccl" not in name.lower()]
    both = covered(nccl) + covered(others) - covered([*nccl, *others])
    return Kernels(step_ms, len(spans), covered(others), len(nccl), covered(nccl), both)


def covered(spans: Sequence[Span]) -> float:
    """Length of the union."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total
