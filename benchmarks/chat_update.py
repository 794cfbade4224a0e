"""The learner's pass of a chat model, as it is and with each picture read once: `python -m benchmarks.chat_update`.

    python -m benchmarks.chat_update [--images 2] [--samples 8] [--length 64] [--rounds 5] [--size full] [--out FILE]

One forward and backward pass of all captions. `rows`, as `RLModule` learns: each caption's row has the picture's tokens
in front. `shared`: the language model reads picture and question once, and the captions behind them through its cache,
whose gradients add up. Qwen2.5-VL of some 0.5 B numbers with random weights (`--size medium`: few layers, for a CPU),
pictures of 448 x 448 (256 tokens), all weights but the tower's trained, features of pictures given, bf16 autocast on a
GPU. Both give the same log-probabilities and gradients, which the program checks in float32.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from benchmarks.chat_grpo import FULL, TINY, WARM_UP, Side, captioner_of, count, peak, size_of, table
from benchmarks.speed.measure import milliseconds
from capkit.models.captioners.chat_vlm import ChatVLM
from capkit.types import Context

Way = Callable[[ChatVLM, Context, Int[Tensor, "B K L"]], Float[Tensor, "B K M"]]


def of_rows(model: ChatVLM, context: Context, tokens: Int[Tensor, "B K L"]) -> Float[Tensor, "B K M"]:
    """Log-probabilities as the update computes them."""
    return model.logprobs(context, tokens, torch.ones_like(tokens, dtype=torch.bool))


def shared(model: ChatVLM, context: Context, tokens: Int[Tensor, "B K L"]) -> Float[Tensor, "B K M"]:
    """The same, the picture's tokens read once for all captions of it."""
    num_images, num_captions, length = tokens.shape
    cache = DynamicCache()
    first = model._run(context, tokens[:, 0, :1], cache, 0)  # (B 1 W)
    cache.batch_repeat_interleave(num_captions)
    rest = model._run(context, tokens[..., 1:-1].flatten(0, 1), cache, cache.get_seq_length())
    hidden = torch.cat([first.repeat_interleave(num_captions, 0), rest], 1)
    targets = tokens[..., 1:].flatten(0, 1)
    losses = torch.utils.checkpoint.checkpoint(_losses, model, hidden, targets, use_reentrant=False)
    return -losses.view(num_images, num_captions, length - 1)


def _losses(model: ChatVLM, hidden: Tensor, targets: Tensor) -> Tensor:
    logits = model._head(hidden).float()
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")


SIZES = {
    "full": FULL,
    "medium": size_of(width=128, layers=4, heads=4, vision=32, depth=2, image=448, words=300),
    "tiny": TINY,
}
WAYS: dict[str, Way] = {"rows": of_rows, "shared": shared}


def pass_of(way: Way, model: ChatVLM, context: Context, tokens: Tensor, device: str) -> Callable[[], Tensor]:
    def work() -> Tensor:
        model.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logprobs = way(model, context, tokens)
        (logprobs * weights).sum().backward()
        return logprobs.detach()

    weights = torch.linspace(-1, 1, tokens.shape[1], device=device)[:, None]
    return work


def gradients(model: ChatVLM) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def check() -> float:
    """The largest difference of log-probabilities and gradients of a tiny model. Raises AssertionError above 1e-4."""
    model = captioner_of(TINY, 6, "cpu")
    context, tokens = batch_of(model, 2, 3, 6, "cpu")
    found = []
    for way in WAYS.values():
        logprobs = pass_of(way, model, context, tokens, "cpu")()
        found.append([logprobs, *(gradient.clone() for gradient in gradients(model))])
    gap = max(float((one - other).abs().max()) for one, other in zip(*found, strict=True))
    assert gap < 1e-4, gap
    return gap


def batch_of(model: ChatVLM, images: int, samples: int, length: int, device: str) -> tuple[Context, Tensor]:
    torch.manual_seed(0)
    states = torch.randn(images, model.num_image_tokens, model._features_width, device=device)
    context = model._asked(Context(states, None, [str(number) for number in range(images)]))
    return context, torch.randint(5, model.vocab_size - 20, (images, samples, length + 1), device=device)


def main(words: list[str] | None = None) -> dict[str, Side]:
    parser = argparse.ArgumentParser(
        description="The learner's pass of a chat model, as it is and with shared pictures."
    )
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write all numbers here, as JSON")
    parser.add_argument("--size", choices=SIZES, default="full")
    options = parser.parse_args(words)
    print(f"largest difference of both, in float32: {check():.1e}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = captioner_of(SIZES[options.size], options.length, device)
    context, tokens = batch_of(model, options.images, options.samples, options.length, device)
    found: dict[str, Side] = {name: Side() for name in WAYS}
    for number in range(WARM_UP + options.rounds):
        for name, way in WAYS.items():
            work, side = pass_of(way, model, context, tokens, device), found[name]
            peak(device)
            ms = milliseconds(work, device)
            if number >= WARM_UP:
                side.ms.append(ms)
                side.gib = max(side.gib, peak(device))
    for name, way in WAYS.items():
        found[name].tflop = count(pass_of(way, model, context, tokens, device))
    places = len(model.asked_ids) - 1
    print(
        f"{options.images} pictures x {options.samples} captions of {options.length} tokens behind {places}, {device}"
    )
    print(table({"capkit": found["rows"], "shared": found["shared"]}))
    if options.out is not None:
        options.out.write_text(json.dumps({name: asdict(side) for name, side in found.items()}))
    return found


if __name__ == "__main__":
    main()
