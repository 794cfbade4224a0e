"""`--devices N`: batches of `benchmarks.contrastive` over several GPUs, each side's processes one after the other.

capkit: DDP, embeddings gathered with their gradient, one loss over the batch in blocks. open_clip: DDP, `--local-loss
--gather-with-grad`, its `--accum-freq` for what does not fit. Each rank has its share of the batch's pairs.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from benchmarks.contrastive import run_capkit as ours
from benchmarks.contrastive.workloads import SIZES, TINY, Clock, Row, random_pairs, run_steps
from benchmarks.groups import Group, GroupFailed, device_of
from capkit.distributed.collectives import is_distributed, rank, world_size

CAPKIT, EAGER, COMPILED = "capkit", "open_clip", "open_clip --torchcompile"
WARM_UP, STEPS = 1, 2


def measure(side: str, name: str, batch: int, micro_batch: int) -> dict[str, Any]:
    """In each rank: the row, with the pairs of all ranks."""
    gpu = torch.cuda.is_available()
    device, size = device_of(gpu), SIZES.get(name, TINY)
    pairs = random_pairs(size, batch // world_size(), device, seed=rank())
    clock = Clock(device, WARM_UP)
    if side == CAPKIT:
        module = ours.module_of(ours.build(size), compiled=gpu, micro_batch=micro_batch)
        ours.run_steps(clock, module, ours.batch_of(pairs, first=rank() * len(pairs)), STEPS, device)
    else:
        from benchmarks.contrastive import run_open_clip as theirs

        model: Any = theirs.build(size, device)
        if side == COMPILED:
            model = torch.compile(model, dynamic=False)
        if is_distributed():
            model = DistributedDataParallel(model, device_ids=[torch.cuda.current_device()] if gpu else None)
        run_steps(clock, theirs.accumulated_step(model, pairs, micro_batch, device), STEPS)
    gflop = 4 * (size.image_gflop + size.text_gflop)
    return asdict(clock.row(name, f"batch {batch:,}", side, batch, micro_batch, gflop))


def run(
    sides: Sequence[str], name: str, batch: int, micro_batch: int, devices: Sequence[int], gpu: bool
) -> list[tuple[int, Row]]:
    """Numbers of processes and rows, of the slowest rank each; a side that fails is printed and left out."""
    found = []
    for number in devices:
        for side in sides:
            group = Group(number, gpu, timeout_s=120)
            try:
                rows = [Row(**row) for row in group.ask(measure, side, name, batch, micro_batch)]
            except GroupFailed as error:
                print(f"{side} on {number}: {error}", flush=True)
                continue
            group.end()
            found.append((number, max(rows, key=lambda row: row.seconds)))
            row = found[-1][1]
            print(f"{side} on {number}: {row.pairs_per_second:,.0f} pairs/s, {row.peak_gib:.1f} GiB", flush=True)
    return found


def table(rows: Sequence[tuple[int, Row]]) -> str:
    """Markdown; capkit's speed over each side's on as many GPUs."""
    lines = [
        "| model | work | GPUs | side | micro-batch | ms | pairs/s | GiB a GPU | capkit over it |",
        "|---" * 9 + "|",
    ]
    own = {number: row.pairs_per_second for number, row in rows if row.side == CAPKIT}
    for number, row in rows:
        ratio = f"{own[number] / row.pairs_per_second:.2f}" if number in own and row.side != CAPKIT else ""
        lines.append(
            f"| {row.model} | {row.work} | {number} | {row.side} | {row.micro_batch} | {1e3 * row.seconds:,.0f} | "
            f"{row.pairs_per_second:,.0f} | {row.peak_gib:.1f} | {ratio} |"
        )
    return "\n".join(lines)
