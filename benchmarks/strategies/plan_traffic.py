"""Do runs send as many bytes as `capkit plan` says, and take as long? Processes on one machine, as a table.

    python -m benchmarks.strategies.plan_traffic [--ranks 2 4] [--rounds 1] [--gpu] [--out FILE]

Each row is a `capkit` run of a captioner of a few million numbers through gloo, under DDP or a ZeRO stage, with one or
two micro-batches; nothing is downloaded. The runs have a network of their own (`unshare -rn`), whose loopback carries
nothing else: the mean over steps and ranks, TCP's headers and what callbacks exchange included.

Milliseconds are medians of all steps of all rounds; a round runs everything once, so that what else the machine does
meets all alike. The plan adds the planned bytes, at the speed of an all-reduce of as many numbers as the model has, to
the step of one process with a rank's share of the images. That wants a core for each rank.

`--gpu`: on GPUs through NCCL, which is told to go through the same network instead of NVLink and shared memory, in its
protocol without a flag beside each word. It carries the same rings' bytes, but not as fast: no times then. Those over
NVLink are in `python -m benchmarks.speed --devices 2`.
"""

import argparse
import fcntl
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

from benchmarks.faults.ranks import Ranks
from benchmarks.groups import all_reduce_gb
from capkit.distributed.collectives import rank
from capkit.distributed.cost_model import FLOAT, SHARDED, ClusterSpec, StepWorkload, seconds, traffic
from capkit.testing.distributed import run_distributed

TRAINERS = {"one": "cpu", "ddp": "ddp_cpu", **{f"zero{stage}": f"deepspeed_{stage}_cpu" for stage in (1, 2, 3)}}
IMAGES = 8  # of a rank
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # of linux/sockios.h and linux/if.h
WARM_UP, STEPS = 4, 20  # DeepSpeed learns in the first steps in which order weights are wanted
TIMEOUT_S = 240
BY_SOCKETS = {
    "NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "NCCL_IB_DISABLE": "1", "NCCL_SOCKET_IFNAME": "lo",
    "NCCL_PROTO": "Simple", "GLOO_SOCKET_IFNAME": "lo",
}  # fmt: skip
WORDS = (
    "debug=tiny", "max_steps=100", "val_every=100", "callback=[watchdog,guard,preemption,recorder]",
    "trainer.enable_progress_bar=false", "model.width=256", "model.num_layers=4", "model.dropout=0.1",
    "data.train.count=64", "data.val.count=4", "data.test.count=4",
    "+callback.counter._target_=benchmarks.strategies.plan_traffic.Counter",
)  # fmt: skip


class Counter(pl.Callback):
    """Rank 0 writes a line into `file` after each step: bytes that the loopback carried so far, seconds of the step.

    All that a GPU still sends is waited for.
    """

    def __init__(self, file: str) -> None:
        self.file = file

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in pl_module.model.parameters()]
        trainable = sum(size for size, trains in sizes if trains)
        self.numbers = {"trainable": trainable, "frozen": sum(size for size, _ in sizes) - trainable}

    def on_train_batch_start(self, *args: Any) -> None:
        self._begun = time.perf_counter()

    def on_train_batch_end(self, *args: Any) -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
            dist.barrier()
        row = {**self.numbers, "bytes": carried_bytes(), "seconds": time.perf_counter() - self._begun}
        if rank() == 0:
            with Path(self.file).open("a") as file:
                file.write(json.dumps(row) + "\n")


def carried_bytes() -> int:
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split(":")[1].split()[8]) for line in lines if line.strip().startswith("lo:"))


@dataclass
class Cell:
    """A kind of run, and what came out: bytes that a rank sent in a step, seconds of each step."""

    strategy: str
    ranks: int
    micro_batches: int
    trainable: int = 0
    frozen: int = 0
    bytes: float = 0.0
    seconds: list[float] = field(default_factory=list)
    gpu: bool = False

    def run(self, folder: Path, name: str) -> None:
        """Ends the run once enough steps are counted. Raises RuntimeError with its output where they do not come."""
        file = folder / f"{name}.jsonl"
        words = [*WORDS, f"run_dir={folder / name}", f"callback.counter.file={file}"]
        words += [f"data.{split}.cache_dir={folder / 'scenes'}" for split in ("train", "val", "test")]
        trainer = TRAINERS[self.strategy].removesuffix("_cpu" if self.gpu else "")
        words += [f"trainer={trainer}", f"trainer.devices={self.ranks}"]
        words += [f"data.batch_size={IMAGES * self.ranks}", f"micro_batch_size={IMAGES // self.micro_batches}"]
        ranks, end = Ranks(words, self.ranks, folder / f"{name}-logs"), time.monotonic() + TIMEOUT_S
        try:
            while len(rows := read(file)) < WARM_UP + STEPS:
                if len(ranks.running()) < self.ranks or time.monotonic() > end:
                    raise RuntimeError(f"{self} ended or hung after {len(rows)} steps:\n{ranks.output()[-3000:]}")
                time.sleep(0.1)
        finally:
            ranks.end()
        before, *rows = rows[WARM_UP - 1 : WARM_UP + STEPS]
        self.trainable, self.frozen = before["trainable"], before["frozen"]
        self.bytes = (rows[-1]["bytes"] - before["bytes"]) / len(rows) / self.ranks
        self.seconds += [row["seconds"] for row in rows]

    def planned(self, alone_s: float, gb: float) -> tuple[float, float, float]:
        """Bytes by rings, bytes by gloo, seconds of a step: on a processor that takes `alone_s` for the arithmetic."""
        gflop = 1e3 * alone_s / (3 * IMAGES)  # at one TFLOP/s
        work = StepWorkload(
            self.trainable, self.frozen, IMAGES, self.micro_batches, gflop, activation_mib=0.0, mixed=False
        )
        rings = gloo = traffic(work, self.strategy, self.ranks)
        if self.strategy == "zero3":  # gloo reduces to parts by an all-reduce, which sends as much again
            gloo += (self.ranks - 1) / self.ranks * self.micro_batches * FLOAT * self.trainable
        link = gb * rings / gloo  # the detour as a slower link
        cluster = ClusterSpec(1.0, tflops=1.0, link_gb=link, network_gb=link, gpus_per_node=self.ranks, utilization=1.0)
        return rings, gloo, seconds(work, cluster, self.strategy, self.ranks)[1]


def read(file: Path) -> list[dict[str, Any]]:
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def table(alone: list[Cell], cells: list[Cell], speeds: dict[int, float]) -> str:
    """Markdown."""
    names = ["ranks", "strategy", "micro-batches", "MB sent", "plan, rings", "plan, gloo", "ratio"]
    lines = [f"| {' | '.join([*names, 'ms a step', 'plan', 'ratio'])} |", "|---" * 10 + "|"]
    one = {cell.micro_batches: statistics.median(cell.seconds) for cell in alone}
    for cell in cells:
        rings, gloo, step = cell.planned(one[cell.micro_batches], speeds[cell.ranks])
        found = statistics.median(cell.seconds)
        row = [str(cell.ranks), cell.strategy, str(cell.micro_batches)]
        row += [*[f"{sent / 1e6:.2f}" for sent in (cell.bytes, rings, gloo)], f"{cell.bytes / gloo:.3f}"]
        lines.append(f"| {' | '.join([*row, f'{1e3 * found:.0f}', f'{1e3 * step:.0f}', f'{found / step:.2f}'])} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--strategies", nargs="+", choices=SHARDED, default=list(SHARDED))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--gpu", action="store_true", help="NCCL's bytes, without times")
    parser.add_argument("--out", type=Path, help="write all numbers here, a JSON line for each row")
    args = parser.parse_args(arguments)
    if args.gpu:
        os.environ.update(BY_SOCKETS, FAULTS_ON_GPUS="1")
    alone = [] if args.gpu else [Cell("one", 1, m) for m in (1, 2)]
    cells = [Cell(name, n, m, gpu=args.gpu) for n in args.ranks for name in args.strategies for m in (1, 2)]
    speeds: dict[int, list[float]] = {n: [] for n in args.ranks}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.rounds):
            for number, cell in enumerate([*alone, *cells]):
                cell.run(Path(folder), f"{turn}-{number}")
                done = f"{cell.strategy}, {cell.ranks} ranks, {cell.micro_batches} x, {cell.bytes / 1e6:.2f} MB"
                print(f"round {turn}: {done}", file=sys.stderr, flush=True)
            for n, found in speeds.items() if alone else ():
                found.append(run_distributed(all_reduce_gb, n, alone[0].trainable, "cpu")[0])
    if args.gpu:
        print(table_of_bytes(cells))
    else:
        print_with_times(alone, cells, speeds, args.rounds)
    if args.out is not None:
        args.out.write_text("".join(json.dumps(asdict(cell)) + "\n" for cell in [*alone, *cells]))


def table_of_bytes(cells: list[Cell]) -> str:
    """Markdown."""
    lines = ["| ranks | strategy | micro-batches | MB sent | plan | ratio |", "|---" * 6 + "|"]
    for cell in cells:
        plan = cell.planned(1.0, 1.0)[0]
        row = [str(cell.ranks), cell.strategy, str(cell.micro_batches), f"{cell.bytes / 1e6:.2f}", f"{plan / 1e6:.2f}"]
        lines.append(f"| {' | '.join([*row, f'{cell.bytes / plan:.3f}'])} |")
    return "\n".join([f"{cells[0].trainable / 1e6:.2f} M numbers, all trained; {STEPS} steps", *lines])


def print_with_times(alone: list[Cell], cells: list[Cell], speeds: dict[int, list[float]], rounds: int) -> None:
    medians = {n: statistics.median(found) for n, found in speeds.items()}
    print(f"{alone[0].trainable / 1e6:.2f} M numbers, all trained; {rounds} rounds of {STEPS} steps")
    print(f"one process: {', '.join(f'{1e3 * statistics.median(cell.seconds):.0f} ms' for cell in alone)} a step")
    print(f"all-reduce, GB/s of a rank: {', '.join(f'{gb:.2f} ({n} ranks)' for n, gb in medians.items())}")
    print(table(alone, cells, medians))


def bring_up_loopback() -> None:
    """A new network namespace has its loopback, but not up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        fcntl.ioctl(one, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))


if __name__ == "__main__":
    if os.environ.get("CAPKIT_OWN_NETWORK") == "1":
        bring_up_loopback()
        main()
    else:
        words = [sys.executable, "-m", "benchmarks.strategies.plan_traffic", *sys.argv[1:]]
        own = {**os.environ, "CAPKIT_OWN_NETWORK": "1"}
        sys.exit(subprocess.call(["unshare", "-n" if os.geteuid() == 0 else "-rn", *words], env=own))
