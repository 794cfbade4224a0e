"""What a modular captioner's words cost on the CPU: python -m benchmarks.modular_decoding [--width 256] [--rounds 5]

Two tables in Markdown, of one thread. Tokens a CPU second of greedy and beam search, beside an `EncoderDecoder` of
about as many parameters; and CPU microseconds of one step, by how many steps lie behind it: an LSTM's controller costs
the same at any place, one that attends to past steps a little more with each. Weights are random, and no caption ends
early. Arms take turns, and each number is the smallest of the rounds: what else runs on the machine adds to it.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from capkit.decoding.config import Decoding
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.captioners.modular import ModularCaptioner
from capkit.text.tokenizers import word_tokenizer
from capkit.types import CaptionBatch

PLACES = (0, 16, 64, 128)
KINDS = {"CNM: lstm, 2 blocks": ("lstm", 2), "CVLNM: self_attention, 1 block": ("self_attention", 1)}


@dataclass(frozen=True)
class Sizes:
    """Of the models and of what they read and write."""

    width: int = 256
    vocabulary: int = 2000
    images: int = 16
    regions: int = 36
    length: int = 20
    places: Sequence[int] = PLACES


def _tokenizer(sizes: Sizes) -> Any:
    return word_tokenizer([" ".join(f"w{number}" for number in range(sizes.vocabulary))])


def modular(sizes: Sizes, kind: str, blocks: int) -> ModularCaptioner:
    return ModularCaptioner(
        _tokenizer(sizes),
        feature_width=sizes.width,
        width=sizes.width,
        attention_width=sizes.width // 2,
        blocks=blocks,
        controller=kind,
        max_length=max(*sizes.places, sizes.length) + 3,
    )


def encoder_decoder(sizes: Sizes, parameters: int) -> EncoderDecoder:
    """Of about so many parameters: as many layers as bring it closest."""

    def with_layers(layers: int) -> EncoderDecoder:
        return EncoderDecoder(
            _tokenizer(sizes),
            feature_width=sizes.width,
            width=sizes.width,
            num_layers=layers,
            num_heads=8,
            feedforward=4 * sizes.width,
            max_length=sizes.length + 3,
        )

    one, two = (num_parameters(with_layers(layers)) for layers in (1, 2))
    return with_layers(max(1, round(1 + (parameters - one) / (two - one))))


def num_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _batch(sizes: Sizes) -> CaptionBatch:
    features = torch.randn(sizes.images, sizes.regions, sizes.width, generator=torch.Generator().manual_seed(0))
    return CaptionBatch([str(number) for number in range(sizes.images)], features=features)


def endless(model: Any) -> Any:
    """The model in eval mode, which never writes the end of a caption."""
    with torch.no_grad():
        model.head.weight[model.tokenizer.eos_token_id] = 0.0  # among thousands of random scores never the largest ones
    return model.eval()


def fastest(arms: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """CPU seconds of each arm, the smallest of the rounds, in which they take turns."""
    seconds: list[list[float]] = [[] for _ in arms]
    for _ in range(rounds + 1):  # the first one warms up
        for own, arm in zip(seconds, arms, strict=True):
            start = time.process_time()
            arm()
            own.append(time.process_time() - start)
    return [min(own[1:]) for own in seconds]


@torch.inference_mode()
def rates(models: dict[str, Any], sizes: Sizes, rounds: int) -> list[str]:
    """A row a model: parameters, tokens a CPU second of greedy and of beam search."""
    batch, tokens = _batch(sizes), sizes.images * sizes.length
    decodings = [Decoding(max_length=sizes.length), Decoding(method="beam", num_beams=5, max_length=sizes.length)]

    def arm(model: Any, decoding: Decoding) -> Callable[[], object]:
        def write() -> None:
            written = model.generate(model.encode(batch), decoding).mask
            if not bool(written.all()):
                raise SystemExit("expected captions that do not end early, got one that does; give another --width")

        return write

    found = iter(fastest([arm(model, decoding) for model in models.values() for decoding in decodings], rounds))
    lines = ["| captioner | parameters | greedy | beam 5 |", "| --- | --- | --- | --- |"]
    for name, model in models.items():
        speeds = [tokens / next(found) for _ in decodings]
        lines.append(f"| {name} | {num_parameters(model):,} | {speeds[0]:,.0f} | {speeds[1]:,.0f} |")
    return lines


@torch.inference_mode()
def step_costs(models: dict[str, Any], sizes: Sizes, rounds: int) -> list[str]:
    """A row a model: CPU microseconds of a step of all images, behind so many others."""
    batch = _batch(sizes)
    word = torch.full((sizes.images, 1), 5)

    def behind(model: Any, place: int) -> Callable[[], object]:
        context = model.encode(batch)
        cache = model.start(context, place + 1)
        for _ in range(max(place, 1)):
            model.step(context, word, cache)
        states = cache.states

        def step() -> None:
            cache.states = states
            model.step(context, word, cache)

        return step

    lines = [f"| captioner | {' | '.join(str(place) for place in sizes.places)} |"]
    lines.append("|" + " --- |" * (len(sizes.places) + 1))
    for name, model in models.items():
        found = fastest([behind(model, place) for place in sizes.places], 4 * rounds)
        lines.append(f"| {name} | {' | '.join(f'{1e6 * seconds:,.0f}' for seconds in found)} |")
    return lines


def main(sizes: Sizes, rounds: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    models = {name: endless(modular(sizes, *kind)) for name, kind in KINDS.items()}
    likes = {f"EncoderDecoder like {name.partition(':')[0]}": num_parameters(model) for name, model in models.items()}
    others = {name: endless(encoder_decoder(sizes, count)) for name, count in likes.items()}
    print(f"{sizes.images} images of {sizes.regions} regions, {sizes.length} tokens, width {sizes.width}; one thread\n")
    print("Tokens a CPU second:\n", *rates(models | others, sizes, rounds), sep="\n")
    print("\nCPU microseconds of a step of all images, by the steps behind it:\n", sep="\n")
    print(*step_costs(models, sizes, rounds), sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    main(Sizes(width=given.width), given.rounds)
