"""Do several GPUs draw what one draws? Captions of the same pictures, token for token, as a table.

    python -m benchmarks.strategies.rollouts [--devices 2] [--steps 3] [--out FILE] [--tiny]

A self-critical run as in section step of `benchmarks.speed` on one GPU and on several, 64 pictures in all, five samples
and the greedy caption of each; every step's rollout is kept. Weights are random and do not move (learning rate 0).
The third step's rollout is a captured graph where there is one. In float32 all are to be equal; in bf16 rounding
differs with the shapes, so that some draws flip, and what follows them in their caption. `--strategies parts` is one
GPU that gets the pictures in as many batches as there would be ranks: what the shapes alone do.
"""

import argparse
import json
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from benchmarks.groups import Group, device_of
from benchmarks.speed import step
from benchmarks.speed.rollout import FULL, TINY
from benchmarks.speed.spread import SHARDED, zero_of
from benchmarks.speed.steps import Steps
from capkit.decoding.config import Decoding
from capkit.distributed.collectives import rank, world_size
from capkit.optim.optimizers import AdamW
from capkit.types import CaptionBatch, Samples

ROW = step.Row("encoder_decoder", 64, 5)
PARTS = "parts"  # on one GPU
STRATEGIES = (PARTS, "ddp", *SHARDED)
PRECISIONS = ("32-true", "bf16-mixed")

Captions = dict[str, list[list[int]]]  # of each image: its samples, then its greedy caption


def draw(strategy: str, precision: str, steps: int, tiny: bool) -> list[Captions]:
    """In each rank: what it wrote for its images in each step."""
    return _draw(strategy, precision, steps, tiny, rank(), world_size())


def draw_in_parts(parts: int, precision: str, steps: int, tiny: bool) -> list[Captions]:
    """The same by one process, as so many runs one after the other."""
    found = [_draw("one", precision, steps, tiny, part, parts) for part in range(parts)]
    return [{key: value for part in of_step for key, value in part.items()} for of_step in zip(*found, strict=True)]


def _draw(strategy: str, precision: str, steps: int, tiny: bool, part: int, parts: int) -> list[Captions]:
    device, size = device_of(torch.cuda.is_available()), TINY if tiny else FULL
    row = replace(ROW, images=4, length=6) if tiny else ROW
    module, batch = step.module_of(row, size, step.Judge.of(size, device), device)
    module.optimizer_factory = AdamW(lr=1e-9, lr_multipliers={"*": 0.0})
    share = batch.select(list(range(part, row.images, parts))).to(device)
    kept: list[Captions] = []
    sample = module.sample

    def keeping(batch: CaptionBatch, decoding: Decoding, with_greedy: bool = False) -> Samples:
        written = sample(batch, decoding, with_greedy)
        assert written.tokens is not None and written.mask is not None
        pairs = zip(written.tokens.cpu(), written.mask.cpu(), strict=True)
        captions = [[row[real].tolist() for row, real in zip(*pair, strict=True)] for pair in pairs]
        kept.append(dict(zip(batch.keys, captions, strict=True)))
        return written

    module.sample = keeping  # type: ignore[method-assign]
    work = Steps(module, share, device, zero_of(strategy), precision)
    for _ in range(steps):
        work()
    work.close()
    return kept


def differing(one: Captions, many: Captions) -> dict[str, int]:
    """Captions and tokens that are not the same; `tokens` are those that one GPU wrote."""
    pairs = [pair for key in one for pair in zip(one[key], many[key], strict=True)]
    flipped = sum(a != b for pair in pairs for a, b in zip_longest(*pair))
    different = sum(a != b for a, b in pairs)
    return {"captions": len(pairs), "different": different, "tokens": sum(len(a) for a, _ in pairs), "flipped": flipped}


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2, help="GPUs; where there are fewer, processes on the CPU")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path, help="keep all numbers in this JSON file")
    parser.add_argument("--tiny", action="store_true", help="a few layers and images")
    args = parser.parse_args(arguments)
    wanted = 1 if args.strategies == [PARTS] else args.devices
    gpu = torch.cuda.device_count() >= wanted
    one, rows = Group(1, gpu), []
    many: Group | None = None
    print(
        "| strategy | precision | step | captions | not equal | tokens not equal |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for precision in args.precision:
        alone = one.ask(draw, "one", precision, args.steps, args.tiny)[0]
        for strategy in args.strategies:
            if strategy == PARTS:
                found = one.ask(draw_in_parts, args.devices, precision, args.steps, args.tiny)
            else:
                many = many or Group(args.devices, gpu)
                found = many.ask(draw, strategy, precision, args.steps, args.tiny)
            for number in range(args.steps):
                together = {key: value for rank in found for key, value in rank[number].items()}
                counts = differing(alone[number], together)
                rows.append({"strategy": strategy, "precision": precision, "step": number, **counts})
                shares = f"{counts['different']} | {counts['flipped'] / counts['tokens']:.2%}"
                print(f"| {strategy} | {precision} | {number} | {counts['captions']} | {shares} |", flush=True)
        if args.out:
            args.out.write_text(json.dumps(rows, indent=1))
    one.end()
    if many is not None:
        many.end()
    return rows


if __name__ == "__main__":
    main()
