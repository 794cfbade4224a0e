"""`--devices N`: whole training steps on one GPU and on N, each with the same work a GPU, in turn in one run.

ViT-B/16 with a decoder of 12 layers (likelihood, self-critical) and a ClipCap over GPT-2 (self-retrieval), as in
sections mle and step. A round asks one GPU, DDP and ZeRO for some steps each; those that do not run hold their weights
and graphs only. Of ranks, the slowest counts. Beside each step stands what `capkit plan` says of its traffic, at the
speed of an all-reduce of as many numbers as the model trains.
"""

import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from benchmarks.groups import Group, GroupFailed, all_reduce_gb, device_of
from benchmarks.speed import step, training
from benchmarks.speed.kernels import kernels_of
from benchmarks.speed.measure import wait
from benchmarks.speed.rollout import FULL, TINY
from benchmarks.speed.steps import Steps
from capkit.distributed.collectives import rank, world_size
from capkit.distributed.cost_model import StepWorkload, traffic
from capkit.distributed.zero import Zero
from capkit.train.train_module import TrainModule
from capkit.types import CaptionBatch

SHARDED = ("zero1", "zero2", "zero3")


@dataclass(frozen=True)
class Work:
    """`row`: of one GPU. `strategies`: those that run beside one GPU. `small`: the steps of all fit into it at once."""

    row: training.Row | step.Row
    strategies: tuple[str, ...]
    small: bool
    steps: int = 4  # in a turn

    @property
    def name(self) -> str:
        return self.row.name


WORKS = (
    Work(training.Row("mle", 256, 1, 32), ("ddp", *SHARDED), small=False),
    Work(step.Row("encoder_decoder", 64, 5), ("ddp", "zero2"), small=True),
    Work(step.Row("clip_prefix", 100, 1, self_retrieval=True), ("ddp", "zero2"), small=True),
)
COLUMNS = (
    "work, a GPU", "strategy", "GPUs", "ms (median, range)", "images/s", "of one GPU's", "GiB", "MB sent, plan",
    "ms to send", "ms beyond one GPU", "NCCL ms", "hidden", "other kernels ms", "launches",
)  # fmt: skip


# -- in the processes

_strategy: dict[str, str] = {}
_running: dict[str, Steps] = {}  # the steps of this process


def take(strategy: str) -> None:
    """Which strategy this process trains by from now on."""
    _strategy["name"] = strategy


def build(work: Work, tiny: bool) -> dict[str, int]:
    """Begin the work, this rank's share of it; the numbers that its model trains and does not."""
    device, size = device_of(torch.cuda.is_available()), TINY if tiny else FULL
    whole = replace(work.row, images=work.row.images * world_size())
    module, batch = _module_of(whole, size, device)
    batch = batch.select(list(range(rank(), whole.images, world_size()))).to(device)
    sizes = [(p.numel(), p.requires_grad) for p in module.model.parameters()]
    _running["steps"] = Steps(module, batch, device, zero_of(_strategy["name"]))
    for _ in range(3):  # graphs are captured when a shape comes again
        _running["steps"]()
    if device == "cuda":
        torch.cuda.empty_cache()
    trainable = sum(number for number, trains in sizes if trains)
    return {"trainable": trainable, "frozen": sum(number for number, _ in sizes) - trainable}


def _module_of(row: Any, size: Any, device: str) -> tuple[TrainModule, CaptionBatch]:
    if isinstance(row, training.Row):
        return training.module_of(row, size, training.Data.of(row, size, device), device)
    return step.module_of(row, size, step.Judge.of(size, device), device)


def zero_of(strategy: str) -> Zero | None:
    return Zero(int(strategy[4])) if strategy in SHARDED else None


def turn(number: int) -> dict[str, float]:
    """Milliseconds of a step, after one that is not timed; memory that the allocator gives back afterwards."""
    device, steps = device_of(torch.cuda.is_available()), _running["steps"]
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    steps()
    wait(device)
    begun = time.perf_counter()
    for _ in range(number):
        steps()
    wait(device)
    seconds = time.perf_counter() - begun
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    if device == "cuda":
        torch.cuda.empty_cache()
    return {"ms": 1000 * seconds / number, "gib": peak}


def profile() -> dict[str, Any]:
    return kernels_of(_running["steps"]).as_row()


def close() -> None:
    _running.pop("steps").close()


# -- around them


@dataclass
class Measured:
    """A row. `gb`: of an all-reduce between these ranks, GB/s."""

    work: str
    strategy: str
    devices: int
    images: int
    micro_batches: int = 1
    trainable: int = 0
    frozen: int = 0
    gb: float = float("nan")
    gib: float = 0.0
    ms: list[float] = field(default_factory=list)
    kernels: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def images_per_second(self) -> float:
        return 1000 * self.devices * self.images / statistics.median(self.ms)

    @property
    def planned_bytes(self) -> float:
        if self.devices == 1:
            return 0.0
        work = StepWorkload(self.trainable, self.frozen, self.images, self.micro_batches, 0.0, 0.0, mixed=True)
        return traffic(work, self.strategy, self.devices)


class Sides:
    """A group for each strategy, started when it is wanted; one that failed is started anew for the next work."""

    def __init__(self, devices: int, gpu: bool) -> None:
        self.devices, self.gpu, self._groups = devices, gpu, dict[str, Group]()

    def start(self, strategies: Iterable[str]) -> None:
        new: list[str] = []
        for name in strategies:
            if name not in self._groups:
                self._groups[name] = Group(1 if name == "one" else self.devices, self.gpu)
                self._groups[name].tell(take, name)
                new.append(name)
        for name in new:
            self._groups[name].answers()

    def ask(self, row: Measured, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Nothing, once the row's group failed."""
        self._tell(row, function, *args)
        return self._answers(row)

    def ask_all(self, rows: list[Measured], function: Callable[..., Any], *args: Any) -> list[list[Any]]:
        """All groups at once."""
        for row in rows:
            self._tell(row, function, *args)
        return [self._answers(row) for row in rows]

    def _tell(self, row: Measured, function: Callable[..., Any], *args: Any) -> None:
        if not row.error:
            self._groups[row.strategy].tell(function, *args)

    def _answers(self, row: Measured) -> list[Any]:
        try:
            return [] if row.error else self._groups[row.strategy].answers()
        except GroupFailed as error:
            row.error = str(error)
            del self._groups[row.strategy]
            return []

    def end(self) -> None:
        for group in self._groups.values():
            group.end()


def measure(work: Work, sides: Sides, rounds: int, tiny: bool) -> list[Measured]:
    """The first row is that of one GPU."""
    names = ("one", *work.strategies)
    rows = [Measured(work.name, name, 1 if name == "one" else sides.devices, work.row.images) for name in names]
    sides.start(names)
    built = (
        sides.ask_all(rows, build, work, tiny) if work.small else [sides.ask(row, build, work, tiny) for row in rows]
    )
    for row, answers in zip(rows, built, strict=True):
        for answer in answers[:1]:
            row.trainable, row.frozen = answer["trainable"], answer["frozen"]
    for row in rows[1:]:
        row.gb = next(iter(sides.ask(row, all_reduce_gb, row.trainable, device_of(sides.gpu))), row.gb)
    for _ in range(rounds):
        for row in rows:
            if answers := sides.ask(row, turn, work.steps):
                row.ms.append(max(answer["ms"] for answer in answers))
                row.gib = max(row.gib, *(answer["gib"] for answer in answers))
    for row in rows:
        if sides.gpu:
            row.kernels = next(iter(sides.ask(row, profile)), {})
        sides.ask(row, close)
    return rows


def lines(rows: list[Measured]) -> Iterator[str]:
    one = rows[0]
    for row in rows:
        cells = [row.work, row.strategy, str(row.devices)]
        if row.error or one.error:
            cells += [f"failed: {(row.error or 'one GPU').splitlines()[-1]}", *[""] * (len(COLUMNS) - 4)]
            yield f"| {' | '.join(cells)} |"
            continue
        pairs = list(zip(row.ms, one.ms, strict=True))
        cells += [
            f"{statistics.median(row.ms):.1f} [{min(row.ms):.1f} .. {max(row.ms):.1f}]",
            f"{row.images_per_second:,.0f}",
            f"{statistics.median(row.devices * alone / ms for ms, alone in pairs):.2f}", f"{row.gib:.1f}",
        ]  # fmt: skip
        sent, beyond = row.planned_bytes / 1e6, statistics.median(ms - alone for ms, alone in pairs)
        cells += ["", "", ""] if row is one else [f"{sent:.0f}", f"{sent / row.gb:.1f}", f"{beyond:.1f}"]
        seen = row.kernels
        cells += [f"{seen['nccl_ms']:.1f}", f"{seen['hidden']:.0%}"] if seen and row is not one else ["", ""]
        cells += [f"{seen['busy_ms']:.1f}", str(seen["launches"])] if seen else ["", ""]
        yield f"| {' | '.join(cells)} |"


def of_a_size(tiny: bool) -> tuple[Work, ...]:
    if not tiny:
        return WORKS
    return tuple(
        replace(work, row=replace(work.row, images=2, length=4), steps=1, strategies=work.strategies[-2:])
        for work in WORKS
    )


def run(devices: int, only: str, rounds: int, tiny: bool) -> Iterator[tuple[list[str], list[dict[str, Any]]]]:
    """Of each work in whose name `only`, a regular expression, is found, the lines to print and the numbers to keep."""
    sides = Sides(devices, gpu=torch.cuda.device_count() >= devices)
    try:
        for work in of_a_size(tiny):
            if re.search(only, work.name):
                rows = measure(work, sides, rounds, tiny)
                yield list(lines(rows)), [{**asdict(row), "planned_bytes": row.planned_bytes} for row in rows]
    finally:
        sides.end()
