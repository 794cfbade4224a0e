"""The work of `benchmarks.contrastive`: CLIP by size, random pairs, their arithmetic, and how a step is timed."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

BOS, EOS, PAD = -2, -1, 0  # of the vocabulary: its two last ids and its first


@dataclass(frozen=True)
class Size:
    """A CLIP model: widths, layers and heads of both towers; everything else is CLIP's, with plain GELU."""

    name: str
    patch: int
    image: int = 224
    width: int = 768
    layers: int = 12
    text_width: int = 512
    text_layers: int = 12
    length: int = 77
    vocabulary: int = 49_408
    joint: int = 512
    head: int = 64

    @property
    def image_gflop(self) -> float:
        """Of one picture's forward pass: matrix products alone, two operations a multiply-add."""
        patches = (self.image // self.patch) ** 2
        embedding = 2 * patches * 3 * self.patch**2 * self.width
        return (embedding + _layers(patches + 1, self.width, self.layers) + 2 * self.width * self.joint) / 1e9

    @property
    def text_gflop(self) -> float:
        """Of one caption's forward pass at full length."""
        return (_layers(self.length, self.text_width, self.text_layers) + 2 * self.text_width * self.joint) / 1e9


def _layers(tokens: int, width: int, layers: int) -> float:
    return layers * (24 * tokens * width**2 + 4 * tokens**2 * width)


SIZES = {size.name: size for size in (Size("ViT-B/32", 32), Size("ViT-B/16", 16))}
TINY = Size("tiny", 8, 16, 32, 2, 32, 2, 12, 64, 16, 16)


@dataclass(frozen=True)
class Pairs:
    """Normalised pixels (N 3 H W) and CLIP tokens (N 77): BOS, words, EOS, then 0."""

    pixels: Tensor
    tokens: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice) -> "Pairs":
        return Pairs(self.pixels[rows], self.tokens[rows], self.lengths[rows])

    def parts(self, size: int) -> "list[Pairs]":
        return [self[start : start + size] for start in range(0, len(self), size)]


def random_pairs(size: Size, number: int, device: str, full: bool = True, seed: int = 0) -> Pairs:
    """Noise and random words. `full`: captions fill all positions; else they are as long as COCO's, 14 tokens or so."""
    generator = torch.Generator(device).manual_seed(seed)
    shape = (number, 3, size.image, size.image)
    pixels = torch.randn(shape, generator=generator, device=device)
    words = torch.randint(1, size.vocabulary - 2, (number, size.length), generator=generator, device=device)
    spread = 14 + 3 * torch.randn(number, generator=generator, device=device)
    lengths = spread.round().long().clamp(7, 40).clamp(max=size.length)
    if full:
        lengths = torch.full_like(lengths, size.length)
    column = torch.arange(size.length, device=device)[None]
    last = lengths[:, None] - 1
    tokens = torch.where(column < last, words, torch.where(column == last, size.vocabulary + EOS, PAD))
    tokens[:, 0] = size.vocabulary + BOS
    return Pairs(pixels, tokens, lengths)


@dataclass
class Row:
    """One line of the table. `gflop` is what a pair needs by arithmetic, second forward passes included."""

    model: str
    work: str
    side: str
    batch: int
    micro_batch: int
    gflop: float
    seconds: float
    spread: float
    peak_gib: float
    loss: float

    @property
    def pairs_per_second(self) -> float:
        return self.batch / self.seconds

    def as_dict(self) -> dict[str, Any]:
        speed = {"pairs_per_second": self.pairs_per_second, "tflop_per_second": self.tflop_per_second}
        return {**asdict(self), **speed}

    @property
    def tflop_per_second(self) -> float:
        return self.batch * self.gflop / self.seconds / 1e3


class Clock:
    """Seconds of steps between two synchronisations, and the most memory that tensors took in them."""

    def __init__(self, device: str, warm_up: int) -> None:
        self.on_gpu, self.warm_up = device == "cuda", warm_up
        self.seconds: list[float] = []
        self.loss = float("nan")

    def start(self) -> None:
        self._synchronize()
        if self.on_gpu and len(self.seconds) == self.warm_up:
            torch.cuda.reset_peak_memory_stats()
        self._begun = time.perf_counter()

    def stop(self, loss: Tensor) -> None:
        self._synchronize()
        self.seconds.append(time.perf_counter() - self._begun)
        self.loss = float(loss)

    def row(self, model: str, work: str, side: str, batch: int, micro_batch: int, gflop: float) -> Row:
        timed = self.seconds[self.warm_up :]
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.on_gpu else 0.0
        spread = (max(timed) - min(timed)) / statistics.median(timed)
        return Row(
            model, work, side, batch, micro_batch, gflop, statistics.median(timed), spread, peak, self.loss
        )  # fmt: skip

    def _synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


def run_steps(clock: Clock, step: Callable[[], Tensor], steps: int) -> None:
    for _ in range(clock.warm_up + steps):
        clock.start()
        clock.stop(step())


def free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
