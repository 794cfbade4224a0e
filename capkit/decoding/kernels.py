"""Triton kernels of a decoding step on a GPU; `capkit.decoding.fused` says what each computes.

R rows, B images, K captions per image, H heads, E head width, C slots of a cache, N image tokens, D width, F = 3 D, V
vocabulary. Sums are in float32, those over the vocabulary in float64.
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 256  # tokens whose probabilities are summed at the first level
BLOCKS_AT_ONCE = 16  # that a program sums

# What Triton compiles it must read as it stands: the import hook that checks shapes in tests passes by `no_type_check`.


@triton.jit
@no_type_check
def _add_norm(x, delta, weight, bias, total, out, width, eps, HAS_DELTA: tl.constexpr, WIDTH: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    inside = column < width
    value = tl.load(x + row * width + column, mask=inside, other=0.0).to(tl.float32)
    if HAS_DELTA:
        value += tl.load(delta + row * width + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(total + row * width + column, value, mask=inside)
    mean = tl.sum(value, 0) / width
    centred = tl.where(inside, value - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + column, (centred * scale * gain + shift).to(out.dtype.element_ty), mask=inside)


def add_norm(
    x: Float[Tensor, "R D"],
    delta: Float[Tensor, "R D"] | None,
    weight: Float[Tensor, " D"],
    bias: Float[Tensor, " D"],
    eps: float,
    dtype: torch.dtype,
) -> tuple[Float[Tensor, "R D"], Float[Tensor, "R D"]]:
    rows, width = x.shape
    total = x if delta is None else torch.empty_like(x)
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    has_delta = delta is not None
    _add_norm[(rows,)](
        x, delta if has_delta else x, weight, bias, total, out, width, eps,
        HAS_DELTA=has_delta, WIDTH=triton.next_power_of_2(width), num_warps=4,
    )  # fmt: skip
    return total, out


@triton.jit(do_not_specialize=["position"])
@no_type_check
def _attend_self(
    qkv, keys, values, out, position, capacity, scale, num_heads, head_width,
    SLOTS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place = tl.arange(0, WIDTH)
    inside = place < head_width
    width = num_heads * head_width
    new = qkv + row * 3 * width + head * head_width + place
    query = tl.load(new, mask=inside, other=0.0).to(tl.float32) * scale
    key = tl.load(new + width, mask=inside, other=0.0)
    value = tl.load(new + 2 * width, mask=inside, other=0.0)
    cache = (row * num_heads + head) * capacity * head_width
    here = cache + position * head_width + place
    tl.store(keys + here, key, mask=inside)
    tl.store(values + here, value, mask=inside)
    # The new token first, from registers; then the cache's tokens by an online softmax.
    largest = tl.sum(query * key.to(tl.float32), 0)
    weights = tl.full([], 1.0, tl.float32)
    attended = value.to(tl.float32)
    for start in range(0, position, SLOTS):
        slot = start + tl.arange(0, SLOTS)
        seen = slot < position
        at = cache + slot[:, None] * head_width + place[None, :]
        both = seen[:, None] & inside[None, :]
        old_keys = tl.load(keys + at, mask=both, other=0.0).to(tl.float32)
        old_values = tl.load(values + at, mask=both, other=0.0).to(tl.float32)
        scores = tl.where(seen, tl.sum(old_keys * query[None, :], 1), -float("inf"))
        larger = tl.maximum(largest, tl.max(scores, 0))
        decay, part = tl.exp(largest - larger), tl.exp(scores - larger)
        weights = weights * decay + tl.sum(part, 0)
        attended = attended * decay + tl.sum(part[:, None] * old_values, 0)
        largest = larger
    tl.store(out + row * width + head * head_width + place, (attended / weights).to(out.dtype.element_ty), mask=inside)


def attend_self(
    query_key_value: Float[Tensor, "R F"],
    keys: Float[Tensor, "R H C E"],
    values: Float[Tensor, "R H C E"],
    position: int,
    scale: float,
) -> Float[Tensor, "R D"]:
    rows, heads, capacity, width = keys.shape
    out = query_key_value.new_empty((rows, heads * width))
    _attend_self[(rows, heads)](
        query_key_value, keys, values, out, position, capacity, scale, heads, width,
        SLOTS=16, WIDTH=triton.next_power_of_2(width), num_warps=1,
    )  # fmt: skip
    return out


@triton.jit
@no_type_check
def _attend_image(
    query, keys, values, out, key_image, key_head, key_token, value_image, value_head, value_token,
    captions, tokens, scale, num_heads, head_width,
    QUERIES: tl.constexpr, TOKENS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    image, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    caption = tl.program_id(2) * QUERIES + tl.arange(0, QUERIES)
    place = tl.arange(0, WIDTH)
    inside = place < head_width
    width = num_heads * head_width
    at = (image * captions + caption[:, None]) * width + head * head_width + place[None, :]
    real = (caption < captions)[:, None] & inside[None, :]
    asked = tl.load(query + at, mask=real, other=0.0)
    largest = tl.full([QUERIES], -float("inf"), tl.float32)
    weights = tl.zeros([QUERIES], tl.float32)
    attended = tl.zeros([QUERIES, WIDTH], tl.float32)
    for start in range(0, tokens, TOKENS):
        token = start + tl.arange(0, TOKENS)
        seen = token < tokens
        both = seen[:, None] & inside[None, :]
        key_at = image * key_image + head * key_head + token[:, None] * key_token + place[None, :]
        value_at = image * value_image + head * value_head + token[:, None] * value_token + place[None, :]
        key = tl.load(keys + key_at, mask=both, other=0.0)
        value = tl.load(values + value_at, mask=both, other=0.0)
        scores = tl.dot(asked, tl.trans(key), input_precision="ieee") * scale
        scores = tl.where(seen[None, :], scores, -float("inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        decay, part = tl.exp(largest - larger), tl.exp(scores - larger[:, None])
        weights = weights * decay + tl.sum(part, 1)
        attended = attended * decay[:, None] + tl.dot(part.to(value.dtype), value, input_precision="ieee")
        largest = larger
    tl.store(out + at, (attended / weights[:, None]).to(out.dtype.element_ty), mask=real)


def attend_image(
    query: Float[Tensor, "R D"],
    keys: Float[Tensor, "B H N E"],
    values: Float[Tensor, "B H N E"],
    scale: float,
) -> Float[Tensor, "R D"]:
    images, heads, tokens, width = keys.shape
    captions = len(query) // images
    out = torch.empty_like(query)
    queries = 16
    _attend_image[(images, heads, triton.cdiv(captions, queries))](
        query, keys, values, out, *keys.stride()[:3], *values.stride()[:3],
        captions, tokens, scale, heads, width,
        QUERIES=queries, TOKENS=32, WIDTH=max(16, triton.next_power_of_2(width)), num_warps=2, num_stages=3,
    )  # fmt: skip
    return out


@triton.jit
@no_type_check
def _sum_blocks(
    logits, uniforms, largest, sums, of_image, of_caption, captions, vocabulary, num_blocks, temperature,
    BLOCKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1) * BLOCKS + tl.arange(0, BLOCKS)
    token = block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    row_logits = logits + (row // captions) * of_image + (row % captions) * of_caption
    scores = tl.load(row_logits + token, mask=token < vocabulary, other=-float("inf")).to(tl.float32)
    scores = scores / tl.where(tl.load(uniforms + row) >= 0, temperature, 1.0)
    most = tl.max(scores, 1)
    safe = tl.where(most == -float("inf"), 0.0, most)  # a block that can give no token
    summed = tl.sum(tl.exp(scores - safe[:, None]), 1)
    tl.store(largest + row * num_blocks + block, most, mask=block < num_blocks)
    tl.store(sums + row * num_blocks + block, summed, mask=block < num_blocks)


@triton.jit
@no_type_check
def _choose(
    logits, uniforms, largest, sums, chosen, logprobs, of_image, of_caption, captions, vocabulary, num_blocks,
    temperature, BLOCKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    block, place = tl.arange(0, BLOCKS), tl.arange(0, BLOCK)
    inside = block < num_blocks
    uniform = tl.load(uniforms + row)
    is_sampled = uniform >= 0
    most = tl.load(largest + row * num_blocks + block, mask=inside, other=-float("inf"))
    summed = tl.load(sums + row * num_blocks + block, mask=inside, other=0.0)
    top = tl.max(most, 0)
    mass = (summed * tl.exp(most - top)).to(tl.float64)
    total = tl.sum(mass, 0)
    threshold = uniform * total
    # Sums of the two levels are rounded differently: neither may pass the last place of positive probability.
    drawn = tl.sum(((tl.cumsum(mass, 0) <= threshold) & inside).to(tl.int32), 0)
    drawn = tl.minimum(drawn, tl.max(tl.where(mass > 0, block, 0), 0))
    best = tl.min(tl.where(most == top, block, num_blocks - 1), 0)
    number = tl.where(is_sampled, drawn, best)
    token = number * BLOCK + place
    row_logits = logits + (row // captions) * of_image + (row % captions) * of_caption
    scores = tl.load(row_logits + token, mask=token < vocabulary, other=-float("inf")).to(tl.float32)
    scores = scores / tl.where(is_sampled, temperature, 1.0)
    part = tl.exp(scores - top).to(tl.float64)
    rest = threshold - tl.sum(tl.where(block < number, mass, 0.0), 0)
    drawn = tl.sum((tl.cumsum(part, 0) <= rest).to(tl.int32), 0)
    drawn = tl.minimum(drawn, tl.max(tl.where(part > 0, place, 0), 0))
    best = tl.min(tl.where(scores == top, place, BLOCK - 1), 0)
    offset = tl.where(is_sampled, drawn, best)
    score = tl.sum(tl.where(place == offset, scores, 0.0), 0)
    # A row of NaN has no token: any will do, where an index past the end would end the process.
    tl.store(chosen + row, tl.minimum(number * BLOCK + offset, vocabulary - 1).to(tl.int64))
    tl.store(logprobs + row, score - top - tl.log(total.to(tl.float32)))


def choose(
    logits: Float[Tensor, "B K V"], uniforms: Float[Tensor, "B K"], temperature: float
) -> tuple[Int[Tensor, "B K"], Float[Tensor, "B K"]]:
    images, captions, vocabulary = logits.shape
    blocks, rows = triton.cdiv(vocabulary, BLOCK), images * captions
    largest, sums = (torch.empty((rows, blocks), dtype=torch.float32, device=logits.device) for _ in range(2))
    chosen = torch.empty((images, captions), dtype=torch.int64, device=logits.device)
    logprobs = torch.empty((images, captions), dtype=torch.float32, device=logits.device)
    common: Any = (*logits.stride()[:2], captions, vocabulary, blocks, temperature)
    _sum_blocks[(rows, triton.cdiv(blocks, BLOCKS_AT_ONCE))](
        logits, uniforms, largest, sums, *common, BLOCKS=BLOCKS_AT_ONCE, BLOCK=BLOCK, num_warps=4
    )
    _choose[(rows,)](
        logits, uniforms, largest, sums, chosen, logprobs, *common,
        BLOCKS=triton.next_power_of_2(blocks), BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return chosen, logprobs
