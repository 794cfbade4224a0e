"""`--objective dreamlip`: DreamLIP's objective with K texts an image beside InfoNCE with one, capkit alone.

The image tower is to run once a step, however many texts there are. By arithmetic a step with K texts takes
(image + K x text) / (image + text) times as long; each row says what share of that speed was reached.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.contrastive import run_capkit as ours
from benchmarks.contrastive.workloads import Clock, Row, Size, free_memory, random_pairs
from capkit.objectives.contrastive.grouped_patches import GroupedPatches
from capkit.objectives.contrastive.info_nce import InfoNCE
from capkit.objectives.contrastive.multi_positive import MultiPositive
from capkit.objectives.contrastive.pair_sum import PairSum
from capkit.types import CaptionBatch

BATCH = {"ViT-B/32": 256, "ViT-B/16": 128, "tiny": 16}  # images
PLAIN = "InfoNCE, 1 text"
WARM_UP, STEPS = 3, 10


def measure(size: Size, numbers: Sequence[int], device: str) -> list[Row]:
    """A row of InfoNCE, and one of DreamLIP for each number of texts."""
    rows = [_row(size, None, device)]
    return rows + [_row(size, number, device) for number in numbers]


def dreamlip() -> PairSum:
    """With negatives of the batch, which cost more than the image's own."""
    return PairSum({"captions": MultiPositive(), "grouping": GroupedPatches(negatives="batch")})


def _row(size: Size, num_texts: int | None, device: str) -> Row:
    torch.compiler.reset()
    free_memory()
    objective = InfoNCE() if num_texts is None else dreamlip()
    module = ours.module_of(ours.build(size), compiled=device == "cuda", objective=objective)
    number, work = num_texts or 1, PLAIN if num_texts is None else f"DreamLIP, {num_texts} texts"
    clock = Clock(device, WARM_UP)
    ours.run_steps(clock, module, batch_of(size, number, device), STEPS, device)
    gflop = 3 * (size.image_gflop + number * size.text_gflop)
    return clock.row(size.name, work, "capkit", BATCH[size.name], BATCH[size.name], gflop)


def batch_of(size: Size, num_texts: int, device: str) -> CaptionBatch:
    """Images with as many full texts each."""
    images = random_pairs(size, BATCH[size.name], device)
    texts = random_pairs(replace(size, image=size.patch), BATCH[size.name] * num_texts, device, seed=1)
    batch = ours.batch_of(images)
    batch.tokens = texts.tokens.view(len(images), num_texts, -1)
    batch.mask = torch.ones_like(batch.tokens, dtype=torch.bool)
    return batch


def shares(rows: Sequence[Row]) -> list[float]:
    """Speed of each row over that of InfoNCE, as a share of what arithmetic lets expect."""
    plain = rows[0]
    return [(plain.seconds / row.seconds) / (plain.gflop / row.gflop) for row in rows]


def table(rows: Sequence[Row]) -> str:
    """Markdown, of one model; pairs are images with a text."""
    lines = [
        "| model | images | work | ms a step | images/s | pairs/s | peak GiB | x InfoNCE | by arithmetic | share |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row, share in zip(rows, shares(rows), strict=True):
        number = 1 if row.work == PLAIN else int(row.work.split()[1])
        slower, expected = row.seconds / rows[0].seconds, row.gflop / rows[0].gflop
        lines.append(
            f"| {row.model} | {row.batch} | {row.work} | {1e3 * row.seconds:.1f} | {row.batch / row.seconds:,.0f} | "
            f"{number * row.batch / row.seconds:,.0f} | {row.peak_gib:.1f} | {slower:.2f} | {expected:.2f} | "
            f"{share:.2f} |"
        )
    return "\n".join(lines)
