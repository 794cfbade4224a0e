"""What DeepSpeed's settings do to a step under ZeRO, beside DDP, and where the time of a step goes.

    python -m benchmarks.strategies.settings [--devices 2] [--size large] [--only WORD] [--rounds 2] [--out FILE]

Likelihood training of a SceneWorld captioner, bf16-mixed on GPUs, as in `benchmarks.strategies`. Each row is an engine
of its own; a round builds all of them one after the other in the same processes. On GPUs the profiler then counts one
more step's kernels: NCCL's, the others', and how much of NCCL's time ran beside others. `--host` prints the functions
of Python in which the host spends a step.
"""

import argparse
import cProfile
import gc
import io
import json
import pstats
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from benchmarks.groups import Group, GroupFailed, device_of
from benchmarks.speed.kernels import kernels_of
from benchmarks.speed.measure import wait
from benchmarks.speed.steps import Steps
from benchmarks.strategies.workloads import SIZES, Cell, Scenes
from capkit.distributed.zero import Zero

WARM_UP, STEPS = 4, 8
MEGA = 1_000_000
# Stage 3's defaults: prefetch 50 M, persistence 100 k, live 1000 M, reuse 1000 M, communication overlapped.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "DDP": ("ddp", {}),
    "1": ("zero1", {}),
    "1, use_multi_rank_bucket_allreduce=false": ("zero1", {"use_multi_rank_bucket_allreduce": False}),
    "2": ("zero2", {}),
    "2, use_multi_rank_bucket_allreduce=false": ("zero2", {"use_multi_rank_bucket_allreduce": False}),
    "2, the same, overlap_comm=true": ("zero2", {"use_multi_rank_bucket_allreduce": False, "overlap_comm": True}),
    "3, persistence 0": ("zero3", {"stage3_param_persistence_threshold": 0}),
    "3": ("zero3", {}),
    "3, leaves below 2 M": ("zero3", {"stage3_module_granularity_threshold": 2 * MEGA}),
    "3, persistence 1 M": ("zero3", {"stage3_param_persistence_threshold": MEGA}),
    "3, leaves below 2 M, persistence 1 M": (
        "zero3",
        {"stage3_module_granularity_threshold": 2 * MEGA, "stage3_param_persistence_threshold": MEGA},
    ),
    "3, persistence 1000 M": ("zero3", {"stage3_param_persistence_threshold": 1000 * MEGA}),
    "3, overlap_comm=false": ("zero3", {"overlap_comm": False}),
    "3, prefetch 0": ("zero3", {"stage3_prefetch_bucket_size": 0}),
    "3, prefetch 500 M": ("zero3", {"stage3_prefetch_bucket_size": 500 * MEGA}),
    "3, live 0, reuse 0": ("zero3", {"stage3_max_live_parameters": 0, "stage3_max_reuse_distance": 0}),
    "3, reduce bucket 10 M": ("zero3", {"reduce_bucket_size": 10 * MEGA}),
    "DDP again": ("ddp", {}),
}
COLUMNS = (
    "stage, settings", "ms (median, range)", "over DDP", "GiB", "other kernels ms", "NCCL ms", "NCCL kernels",
    "hidden", "kernels",
)  # fmt: skip


class Set(Zero):
    """Zero with other keys of DeepSpeed's zero_optimization."""

    def __init__(self, stage: int, settings: Mapping[str, Any]) -> None:
        super().__init__(stage)
        self.settings = settings

    def _config(self, sizes: list[int], clip_norm: float | None) -> dict[str, Any]:
        config = super()._config(sizes, clip_norm)
        return {**config, "zero_optimization": {**config["zero_optimization"], **self.settings}}


class HostProfile(pl.Callback):
    """Python's profiler around steps while it is on: it sees the thread in which they run."""

    def __init__(self) -> None:
        self.is_on, self.profile = False, cProfile.Profile()

    def on_train_batch_start(self, *args: Any) -> None:
        if self.is_on:
            self.profile.enable()

    def on_train_batch_end(self, *args: Any) -> None:
        self.profile.disable()

    def text(self, functions: int = 30) -> str:
        stream = io.StringIO()
        pstats.Stats(self.profile, stream=stream).sort_stats("tottime").print_stats(functions)
        return stream.getvalue()


@dataclass
class Row:
    name: str
    ms: list[float] = field(default_factory=list)
    gib: float = 0.0
    kernels: dict[str, Any] = field(default_factory=dict)
    host: str = ""
    error: str = ""


def run(name: str, size: str, folder: str, with_profile: bool, with_host: bool) -> dict[str, Any]:
    """In each rank: an engine, its steps, its end."""
    gpu = torch.cuda.is_available()
    device = device_of(gpu)
    gc.collect()
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    strategy, settings = SETTINGS[name]
    scenes, host = Scenes(SIZES[size].batch, Path(folder)), HostProfile()
    precision = "bf16-mixed" if gpu else "32-true"
    module = scenes.module(Cell("mle", strategy, 1, precision), SIZES[size], {})
    zero = Set(int(strategy[4]), settings) if strategy != "ddp" else None
    steps = Steps(module, scenes.batch().to(device), device, zero, precision, [host])
    found: dict[str, Any] = {"ms": [], "kernels": {}, "host": ""}
    for number in range(WARM_UP + STEPS):
        wait(device)
        begun = time.perf_counter()
        steps()
        wait(device)
        if number >= WARM_UP:
            found["ms"].append(1000 * (time.perf_counter() - begun))
    found["gib"] = torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0
    if with_profile and gpu:
        found["kernels"] = kernels_of(steps).as_row()
    if with_host:
        host.is_on = True
        steps()
        host.is_on, found["host"] = False, host.text()
    steps.close()
    return found


def measure(names: list[str], args: argparse.Namespace, gpu: bool, folder: str) -> list[Row]:
    rows = [Row(name) for name in names]
    group: Group | None = None
    for turn in range(args.rounds):
        for row in rows:
            if row.error:
                continue
            group = group or Group(args.devices, gpu, args.timeout_s)
            try:
                found = group.ask(run, row.name, args.size, folder, turn == 0, args.host and turn == 0)[0]
            except GroupFailed as error:
                row.error, group = str(error), None
                print(f"{row.name}: {error}", flush=True)
                continue
            row.ms += found["ms"]
            row.gib = max(row.gib, found["gib"])
            row.kernels, row.host = row.kernels or found["kernels"], row.host or found["host"]
            print(f"round {turn}: {row.name}: {statistics.median(found['ms']):.1f} ms", flush=True)
            if args.out:
                args.out.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    if group is not None:
        group.end()
    return rows


def table(rows: list[Row]) -> str:
    """Markdown; the first row is what the others are compared with."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        if row.error or rows[0].error:
            lines.append(
                f"| {row.name} | failed: {(row.error or 'DDP').splitlines()[-1]} |" + " |" * (len(COLUMNS) - 2)
            )
            continue
        ms, kernels = statistics.median(row.ms), row.kernels
        cells = [row.name, f"{ms:.1f} [{min(row.ms):.1f} .. {max(row.ms):.1f}]"]
        cells += [f"{ms / statistics.median(rows[0].ms):.2f}", f"{row.gib:.2f}"]
        if kernels:
            cells += [f"{kernels['busy_ms']:.1f}", f"{kernels['nccl_ms']:.1f}", str(kernels["nccl"])]
            cells += [f"{kernels['hidden']:.0%}", str(kernels["launches"])]
        lines.append(f"| {' | '.join([*cells, *[''] * (len(COLUMNS) - len(cells))])} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2, help="GPUs; where there are fewer, processes on the CPU")
    parser.add_argument("--size", choices=SIZES, default=None, help="of the model; large on GPUs, else tiny")
    parser.add_argument("--only", default="", help="DDP, and rows whose name holds this")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--host", action="store_true", help="profile Python in one step of each row")
    parser.add_argument("--timeout-s", type=float, default=60, help="of a row")
    parser.add_argument("--out", type=Path, help="keep all numbers in this JSON file")
    args = parser.parse_args(arguments)
    gpu = torch.cuda.device_count() >= args.devices
    args.size = args.size or ("large" if gpu else "tiny")
    names = [name for name in SETTINGS if name == "DDP" or args.only in name]
    with tempfile.TemporaryDirectory() as folder:
        Scenes(SIZES[args.size].batch, Path(folder))  # makes the scenes
        rows = measure(names, args, gpu, folder)
    device = torch.cuda.get_device_name() if gpu else "CPU"
    print(f"{args.devices} x {device}, torch {torch.__version__}, {args.size}, {SIZES[args.size].batch} images a step")
    print(table(rows))
    for row in rows:
        if row.host:
            print(f"\n{row.name}\n{row.host}")
    return rows


if __name__ == "__main__":
    main()
