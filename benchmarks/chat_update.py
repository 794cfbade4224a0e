"""The learner's pass of a chat model, each picture read once or once a caption: `python -m benchmarks.chat_update`.

    python -m benchmarks.chat_update [--images 2] [--samples 8] [--length 64] [--rounds 5] [--size full] [--recompute]

One forward and backward pass of all captions, `model.share_pictures` false (`rows`: a row for each caption, with the
picture's tokens in front) and true (`shared`: several captions in one row behind one picture). Qwen2.5-VL of some 0.5 B
numbers with random weights (`--size medium`: few layers, for a CPU), pictures of 448 x 448 (256 tokens), all weights
but the tower's trained, features of pictures given, bf16 autocast on a GPU. Ways take turns. Torch counts operations,
attention's as the products that it is made of, and what a forward pass keeps for the backward pass. Both give the same
log-probabilities and gradients, which the program checks in float32.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.chat_grpo import FULL, TINY, WARM_UP, captioner_of, peak, size_of
from benchmarks.speed.measure import milliseconds
from capkit.models.captioners.chat_vlm import ChatVLM
from capkit.models.encoders.compile import recompute_blocks
from capkit.train.dry_run import measure
from capkit.types import Context

WAYS = {"rows": False, "shared": True}


@dataclass
class Way:
    """Milliseconds of passes, operations of one, MiB that an image keeps for the backward pass, and most memory."""

    ms: list[float] = field(default_factory=list)
    tflop: float = 0.0
    kept_mib: float = 0.0
    gib: float = 0.0


SIZES = {
    "full": FULL,
    "medium": size_of(width=128, layers=4, heads=4, vision=32, depth=2, image=448, words=300),
    "tiny": TINY,
}


def pass_of(name: str, model: ChatVLM, context: Context, tokens: Tensor, device: str) -> Callable[[], Tensor]:
    def work() -> Tensor:
        model.zero_grad(set_to_none=True)
        logprobs = forward(name, model, context, tokens, device)
        (logprobs * weights).sum().backward()
        return logprobs.detach()

    weights = torch.linspace(-1, 1, tokens.shape[1], device=device)[:, None]
    return work


def forward(name: str, model: ChatVLM, context: Context, tokens: Tensor, device: str) -> Tensor:
    model.share_pictures = WAYS[name]
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        return model.logprobs(context, tokens, torch.ones_like(tokens, dtype=torch.bool))


def operations(work: Callable[[], Tensor]) -> float:
    """Tera operations of products, attention's among them."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops()) / 1e12


def kept(name: str, model: ChatVLM, length: int, samples: int, device: str) -> float:
    """MiB that one image more keeps."""

    def compute(images: int) -> Tensor:
        return forward(name, model, *batch_of(model, images, samples, length, device), device)

    found = measure(compute, model.parameters(), mixed=False)
    assert found is not None
    return found[1]


def gradients(model: ChatVLM) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def check() -> float:
    """The largest difference of log-probabilities and gradients of a tiny model. Raises AssertionError above 1e-4."""
    model = captioner_of(TINY, 6, "cpu")
    context, tokens = batch_of(model, 2, 3, 6, "cpu")
    found = []
    for name in WAYS:
        logprobs = pass_of(name, model, context, tokens, "cpu")()
        found.append([logprobs, *(gradient.clone() for gradient in gradients(model))])
    gap = max(float((one - other).abs().max()) for one, other in zip(*found, strict=True))
    assert gap < 1e-4, gap
    return gap


def batch_of(model: ChatVLM, images: int, samples: int, length: int, device: str) -> tuple[Context, Tensor]:
    torch.manual_seed(0)
    states = torch.randn(images, model.num_image_tokens, model._features_width, device=device)
    context = model._asked(Context(states, None, [str(number) for number in range(images)]))
    return context, torch.randint(5, model.vocab_size - 20, (images, samples, length + 1), device=device)


def table(found: dict[str, Way]) -> str:
    lines = ["| pass | ms (median, range) | over rows | TFLOP | MiB an image keeps | GiB at most |", "|---" * 6 + "|"]
    for name, way in found.items():
        ratio = statistics.median(ms / rows for ms, rows in zip(way.ms, found["rows"].ms, strict=True))
        lines.append(
            f"| {name} | {statistics.median(way.ms):.0f} [{min(way.ms):.0f} .. {max(way.ms):.0f}] | {ratio:.2f} | "
            f"{way.tflop:.3g} | {way.kept_mib:.0f} | {way.gib:.1f} |"
        )
    return "\n".join(lines)


def main(words: list[str] | None = None) -> dict[str, Way]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write all numbers here, as JSON")
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--recompute", action="store_true", help="layers run again in the backward pass")
    options = parser.parse_args(words)
    print(f"largest difference of both, in float32: {check():.1e}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = captioner_of(SIZES[options.size], options.length, device)
    if options.recompute:
        recompute_blocks(model.decoder_parts()[0])
    context, tokens = batch_of(model, options.images, options.samples, options.length, device)
    found = {name: Way() for name in WAYS}
    for number in range(WARM_UP + options.rounds):
        for name, way in found.items():
            work = pass_of(name, model, context, tokens, device)
            peak(device)
            ms = milliseconds(work, device)
            if number >= WARM_UP:
                way.ms.append(ms)
                way.gib = max(way.gib, peak(device))
    model.zero_grad(set_to_none=True)
    for name, way in found.items():
        way.tflop = operations(pass_of(name, model, context, tokens, device))
        way.kept_mib = kept(name, model, options.length, options.samples, device)
    places = len(model.asked_ids) - 1
    print(
        f"{options.images} pictures x {options.samples} captions of {options.length} tokens behind {places}, {device}"
    )
    print(table(found))
    if options.out is not None:
        options.out.write_text(json.dumps({name: asdict(way) for name, way in found.items()}))
    return found


if __name__ == "__main__":
    main()
