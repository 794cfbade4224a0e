"""A few training steps under PyTorch's profiler: a trace, and a page that says what the device did."""

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from capkit.run.folder import RunFolder
from capkit.utils.console import say
from capkit.utils.files import write_atomically
from capkit.utils.ranges import NonNegativeInt, PositiveInt, check_ranges

LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
_SHOWN = 15


@dataclass(frozen=True)
class Span:
    """What took place, in microseconds: on the device (kernels, copies) or on the host (operations, calls)."""

    name: str
    start: float | int
    end: float | int
    on_device: bool


def busy_us(spans: Iterable[Span]) -> float | int:
    """Time in which at least one of the spans was going on."""
    total: float | int = 0
    until: float | int = float("-inf")
    for span in sorted(spans, key=lambda span: span.start):
        total += max(0, span.end - max(span.start, until))
        until = max(until, span.end)
    return total


def summary(spans: Sequence[Span], num_steps: int, wall_us: float | int, places: Counter[str], device: str) -> str:
    """The page, in Markdown. `places`: where in the code the host waited, as far as torch warns of it."""
    kernels, host = [s for s in spans if s.on_device], [s for s in spans if not s.on_device]
    busy, names = busy_us(kernels), Counter(span.name for span in host)
    launches, waits = sum(names[name] for name in LAUNCHES), sum(names[name] for name in WAITS)
    waited = busy_us(span for span in host if span.name in WAITS)
    rows = [
        ("wall time", f"{_ms(wall_us / num_steps)} ms"),
        ("device busy", f"{_ms(busy / num_steps)} ms"),
        ("device idle", f"{_ms((wall_us - busy) / num_steps)} ms, {1 - busy / wall_us:.0%} of the time"),
        ("kernels and copies", f"{len(kernels) / num_steps:,.0f}"),
        ("launches by the host", f"{launches / num_steps:,.0f}"),
        ("host waits", f"{waits / num_steps:,.1f}, in all {_ms(waited / num_steps)} ms"),
    ]
    page = [f"# Profile of {num_steps} training steps on {device}", "", "| of a step | |", "| --- | --- |"]
    page += [f"| {name} | {value} |" for name, value in rows]
    operations = [span for span in host if span.name.startswith("aten::")]
    for title, of in (("Kernels", kernels), ("Operations of the host", operations)):
        page += ["", f"## {title} that take most time", "", "| ms of a step | calls | name |", "| --- | --- | --- |"]
        page += _longest(of, num_steps)
    if places:
        page += ["", "## Where the host waits for the device", "", "| of a step | place |", "| --- | --- |"]
        page += [f"| {count / num_steps:.1f} | {place} |" for place, count in places.most_common(_SHOWN)]
    page += ["", "The profiler itself slows the host down: compare busy time and counts, not wall time, between runs."]
    return "\n".join(page) + "\n"


def _longest(spans: Sequence[Span], num_steps: int) -> list[str]:
    time, calls = Counter[str](), Counter(span.name for span in spans)
    for span in spans:
        time[span.name] += span.end - span.start  # type: ignore[assignment]
    return [
        f"| {_ms(us / num_steps)} | {calls[name] / num_steps:,.0f} | `{name[:110]}` |"
        for name, us in time.most_common(_SHOWN)
    ]


def _ms(us: float | int) -> str:
    return f"{us / 1000:,.2f}"


@check_ranges
class Profile(Callback):
    """Profiles `num_steps` steps after the first `warm_up`; the run goes on as usual.

    Writes profile/trace.json into the run folder, for https://ui.perfetto.dev, and profile/summary.md: wall time,
    kernels, launches, waits of the host, idle time of the device, and where the most of each is. Of rank 0.
    """

    def __init__(self, warm_up: NonNegativeInt = 5, num_steps: PositiveInt = 3) -> None:
        self.warm_up, self.num_steps = warm_up, num_steps
        self.folder: RunFolder | None = None
        self._open: contextlib.ExitStack | None = None
        self._profiler: Any = None
        self._told: list[warnings.WarningMessage] = []

    def attach(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.warm_up and trainer.is_global_zero:
            self._start(trainer.strategy.root_device)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._open is not None and batch_idx == self.warm_up + self.num_steps - 1:
            self._stop(trainer.strategy.root_device, self.num_steps)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._open is not None:
            self._stop(trainer.strategy.root_device, max(1, trainer.global_step - self.warm_up))
        elif self._profiler is None and trainer.is_global_zero:
            say(f"debug=profile: the run has no more than callback.profile.warm_up={self.warm_up} steps, none profiled")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _start(self, device: torch.device) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        self._open = contextlib.ExitStack()
        if device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
            torch.cuda.synchronize(device)
            self._told = self._open.enter_context(warnings.catch_warnings(record=True))
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            self._open.callback(torch.cuda.set_sync_debug_mode, "default")
        self._profiler = self._open.enter_context(torch.profiler.profile(activities=activities))
        self._open.enter_context(torch.profiler.record_function("profiled steps"))

    def _stop(self, device: torch.device, num_steps: int) -> None:
        assert self._open is not None and self.folder is not None
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")  # the next wait is the profiler's own
            torch.cuda.synchronize(device)
        self._open.close()
        self._open = None
        spans = [
            Span(event.name, event.time_range.start, event.time_range.end, event.device_type.name == "CUDA")
            for event in self._profiler.events()
        ]
        (whole,) = [span for span in spans if span.name == "profiled steps" and not span.on_device]
        spans = [span for span in spans if span.name != "profiled steps"]
        told = [f"{_short(w.filename)}:{w.lineno}" for w in self._told if "synchroniz" in str(w.message)]
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
        path = self.folder.path / "profile"
        path.mkdir(exist_ok=True)
        self._profiler.export_chrome_trace(str(path / "trace.json"))
        write_atomically(path / "summary.md", summary(spans, num_steps, whole.end - whole.start, Counter(told), name))
        say(f"profile:    {path / 'summary.md'} and trace.json beside it, for https://ui.perfetto.dev")


def _short(path: str) -> str:
    """A file's path from its package on."""
    parts = Path(path).parts
    start = next((place for place, part in enumerate(parts) if part in ("site-packages", "capkit")), 0)
    return "/".join(parts[start + (parts[start] == "site-packages") :])
