"""Does training come out the same under every strategy? Losses, gradient norms, seconds and memory, as a table.

    python -m benchmarks.strategies --devices 2 [--size large] [--precision bf16-mixed 32-true] [--out FILE]

Each objective (likelihood, InfoNCE, self-critical with CIDEr, self-retrieval) trains some steps in one process with the
whole batch, and then on `--devices` processes under DDP and the ZeRO stages, with one and two micro-batches and with
offload. On GPUs through NCCL in bf16 and float32, else on the CPU through gloo in float32. Data are SceneWorld's,
nothing is downloaded. Reinforcement learning replays the captions that one process sampled.

A cell that fails is printed with its error, and the others go on. On two H100 a cell takes some twelve seconds, both
precisions and all objectives about twenty minutes.
"""

import argparse
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.strategies.workloads import OBJECTIVES, SIZES, Cell, Result, Scenes, work_off

SPREAD = [("ddp", 1), ("ddp", 2), ("zero1", 1), ("zero1", 2), ("zero2", 1), ("zero2", 2), ("zero3", 1), ("zero3", 2)]
SPREAD += [("zero2_offload", 2), ("zero3_offload", 2)]
SMALL = 0.1  # losses of policies pass through zero: below it differences count as shares of it


def cells_of(objectives: list[str], precisions: list[str]) -> tuple[list[Cell], list[Cell]]:
    """Those of one process, and those of all."""
    pairs = [(objective, precision) for precision in precisions for objective in objectives]
    alone = [Cell(objective, "one", micro, precision) for objective, precision in pairs for micro in (1, 2)]
    together = [Cell(objective, *how, precision) for objective, precision in pairs for how in SPREAD]
    return alone, together


def run_group(cells: list[Cell], processes: int, args: argparse.Namespace, folder: Path) -> list[Result]:
    """All cells, in as few starts as they allow: a start more for each that fails."""
    results: list[Result] = []
    while len(results) < len(cells):
        results += _one_start(cells[len(results) :], processes, args, folder)
    return results


def _one_start(cells: list[Cell], processes: int, args: argparse.Namespace, folder: Path) -> list[Result]:
    """Results up to the first cell that failed, that one included."""
    file = folder / "results.jsonl"
    file.unlink(missing_ok=True)
    logs = [(folder / f"{rank}.log").open("w") for rank in range(processes)]
    port = _free_port()
    ranks = [_start(cells, rank, processes, port, args, folder, logs[rank]) for rank in range(processes)]
    results: list[Result] = []
    deadline = time.monotonic() + args.start_timeout_s
    failed = ""
    while len(results) < len(cells) and not failed:
        time.sleep(0.2)
        for result in _read(file)[len(results) :]:
            results.append(result)
            show(result)
            deadline = time.monotonic() + args.cell_timeout_s
            if result.error:
                failed = result.error
                break
        ended = [process.poll() for process in ranks]
        if not failed and time.monotonic() > deadline:
            failed = "timeout: no rank went on"
        elif not failed and any(ended) and len(_read(file)) == len(results):
            failed = f"a rank ended with {ended}"
    for process in ranks:
        if failed:
            process.kill()
        process.wait()
    for log in logs:
        log.close()
    if failed and not (results and results[-1].error):
        tail = "\n".join((folder / f"{rank}.log").read_text()[-1500:] for rank in range(processes))
        results.append(Result(cells[len(results)], error=f"{failed}\n{tail}"))
        show(results[-1])
    return results


def _start(
    cells: list[Cell], rank: int, processes: int, port: int, args: argparse.Namespace, folder: Path, log: object
) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    if not args.gpu:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    if processes > 1:
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        environment |= {"LOCAL_WORLD_SIZE": str(processes), "GROUP_RANK": "0"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.save([asdict(cell) for cell in cells], folder / "cells.pt")
    words = [sys.executable, "-m", "benchmarks.strategies", "--rank-of", str(folder)]
    words += ["--size", args.size, "--steps", str(args.steps)]
    return subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT)  # type: ignore[call-overload]


def _read(file: Path) -> list[Result]:
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [Result.from_json(line) for line in lines if line.endswith("\n")]


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def show(result: Result) -> None:
    last = result.error.splitlines()[0] if result.error else f"{1e3 * result.step_seconds:.0f} ms"
    print(f"  {result.cell.name}: {last}", file=sys.stderr, flush=True)


def differences(result: Result, reference: Result) -> tuple[float, float, float]:
    """Largest difference of loss and of gradient norm over the steps, and the mean of all with their signs: shares."""
    ours, theirs = (torch.tensor(r.rows, dtype=torch.float64) for r in (result, reference))
    shares = (ours - theirs) / theirs.abs().clamp(min=SMALL)
    return float(shares[:, 0].abs().max()), float(shares[:, 1].abs().max()), float(shares.mean())


def table(results: list[Result]) -> str:
    """Markdown. The first row of each objective and precision is what the others are compared with."""
    names = ["objective", "precision", "strategy", "micro-batches", "loss", "gradient norm", "mean, signed"]
    names += ["ms a step", "peak GiB"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    whole = [result for result in results if result.cell.strategy == "one" and result.cell.micro == 1]
    references = {(result.cell.objective, result.cell.precision): result for result in whole}
    for result in results:
        cell = result.cell
        reference = references.get((cell.objective, cell.precision))
        if result.error:
            numbers = [f"failed: {result.error.splitlines()[0]}", "", "", "", ""]
        else:
            comparable = reference is not None and reference is not result and not reference.error
            found = [f"{x:.1e}" for x in differences(result, reference)] if comparable else ["", "", ""]  # type: ignore[arg-type]
            peak = "" if math.isnan(result.peak_gib) else f"{result.peak_gib:.2f}"
            numbers = [*found, f"{1e3 * result.step_seconds:.1f}", peak]
        lines.append(f"| {' | '.join([cell.objective, cell.precision, cell.strategy, str(cell.micro), *numbers])} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> list[Result]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2, help="processes; one GPU each where there are as many")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--precision", nargs="+", default=None)
    parser.add_argument("--size", choices=SIZES, default=None, help="of the models; large on GPUs")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--start-timeout-s", type=float, default=180)
    parser.add_argument("--cell-timeout-s", type=float, default=90)
    parser.add_argument("--out", type=Path, help="write all numbers here, a JSON line each")
    parser.add_argument("--rank-of", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.rank_of is not None:
        cells = [Cell(**cell) for cell in torch.load(args.rank_of / "cells.pt")]
        work_off(cells, SIZES[args.size], args.steps, args.rank_of)
        return []
    args.gpu = torch.cuda.device_count() >= args.devices
    args.size = args.size or ("large" if args.gpu else "small")
    precisions = args.precision or (["bf16-mixed", "32-true"] if args.gpu else ["32-true"])
    alone, together = cells_of(args.objectives, precisions)
    with tempfile.TemporaryDirectory() as name:
        Scenes(SIZES[args.size].batch, Path(name))  # makes the scenes
        results = run_group(alone, 1, args, Path(name)) + run_group(together, args.devices, args, Path(name))
    order = [(objective, precision) for precision in precisions for objective in args.objectives]
    results.sort(key=lambda r: order.index((r.cell.objective, r.cell.precision)))
    device = torch.cuda.get_device_name() if args.gpu else "CPU"
    print(f"{args.devices} x {device}, {args.size}, {SIZES[args.size].batch} images a step, {args.steps} steps")
    print(table(results))
    if args.out is not None:
        args.out.write_text("".join(result.as_json() + "\n" for result in results))
    for result in results:
        if result.error:
            print(f"\n{result.cell.name} failed:\n{result.error}")
    return results


if __name__ == "__main__":
    main()
