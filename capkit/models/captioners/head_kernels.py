"""Triton kernels of `head_losses` on a GPU: each reads a chunk's logits once, and keeps no copy of them in float32.

C rows, V vocabulary, P = V and its padding.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 4096  # logits that a program has at a time

# What Triton compiles it must read as it stands: the import hook that checks shapes in tests passes by `no_type_check`.


@triton.jit
@no_type_check
def _measure(logits, targets, found, stride, rows, vocabulary, temperature, smoothing, BLOCK: tl.constexpr):
    row, place = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    own = logits + row * stride
    # Each place of the block has its own largest score and sum: they meet once, at the end.
    largest = tl.full([BLOCK], -1e30, tl.float32)
    summed = tl.zeros([BLOCK], tl.float32)
    plain = tl.zeros([BLOCK], tl.float32)
    for start in range(0, vocabulary, BLOCK):
        inside = start + place < vocabulary
        score = tl.load(own + start + place, mask=inside, other=-float("inf")).to(tl.float32) / temperature
        larger = tl.maximum(largest, score)
        summed = summed * tl.exp(largest - larger) + tl.exp(score - larger)
        plain += tl.where(inside, score, 0.0)
        largest = larger
    top = tl.max(largest, 0)
    rest = tl.log(tl.sum(summed * tl.exp(largest - top), 0))
    target = tl.load(targets + row)
    # No word: not a number, where reading on would give another row's loss.
    is_word = (target >= 0) & (target < vocabulary)
    loss = rest - (tl.load(own + target, mask=is_word, other=float("nan")).to(tl.float32) / temperature - top)
    mean = rest - (tl.sum(plain, 0) / vocabulary - top)
    tl.store(found + row, loss + smoothing * (mean - loss))
    tl.store(found + rows + row, loss)
    tl.store(found + 2 * rows + row, top + rest)


def measure(
    logits: Float[Tensor, "C P"], targets: Int[Tensor, " C"], vocab_size: int, temperature: float, smoothing: float
) -> Float[Tensor, "3 C"]:
    rows, stride, targets = len(logits), logits.stride(0), targets.contiguous()
    found = torch.empty((3, rows), dtype=torch.float32, device=logits.device)
    _measure[(rows,)](
        logits, targets, found, stride, rows, vocab_size, temperature, smoothing, BLOCK=BLOCK, num_warps=8
    )
    return found


@triton.jit
@no_type_check
def _to_slopes(logits, targets, sums, of_target, scale, stride, width, vocabulary, temperature, floor,
               BLOCK: tl.constexpr):  # fmt: skip
    row, place = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    own = logits + row * stride + place
    inside = place < vocabulary
    score = tl.load(own, mask=inside, other=-float("inf")).to(tl.float32) / temperature
    slope = (tl.exp(score - tl.load(sums + row)) - floor) * tl.load(scale + row)
    slope = tl.where(place == tl.load(targets + row), tl.load(of_target + row), tl.where(inside, slope, 0.0))
    tl.store(own, slope.to(logits.dtype.element_ty), mask=place < width)


def to_slopes(
    logits: Float[Tensor, "C P"],
    targets: Int[Tensor, " C"],
    sums: Float[Tensor, " C"],
    of_target: Float[Tensor, " C"],
    scale: Float[Tensor, " C"],
    vocab_size: int,
    temperature: float,
    floor: float,
) -> Float[Tensor, "C P"]:
    rows, width = logits.shape
    targets, sums, of_target, scale = (value.contiguous() for value in (targets, sums, of_target, scale))
    _to_slopes[(rows, triton.cdiv(width, BLOCK))](
        logits, targets, sums, of_target, scale, logits.stride(0), width, vocab_size, temperature, floor,
        BLOCK=BLOCK, num_warps=8,
    )  # fmt: skip
    return logits
