"""Section growth: how the time and memory of a rollout, a self-critical step and a step of likelihood grow.

One of four axes moves at a time, from 64 images x 5 x 20 with a decoder of 150 M parameters: images of the batch,
samples (captions, for likelihood) of an image, length in tokens, and the decoder. The image encoder stays a ViT-B/16.
What does not fit into the GPU's memory is a cell that says so. `--plot FILE` draws the curves.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.speed import step as steps
from benchmarks.speed import vocabulary
from benchmarks.speed.measure import Side, Work, apart, in_turn
from benchmarks.speed.rollout import FULL, TINY, Size
from capkit.decoding.config import Decoding
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.encoders.image import HFImageEncoder
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.train.mle_module import MLEModule
from capkit.types import CaptionBatch

WORKS = ("rollout", "self-critical step", "likelihood step")
# Width and layers of decoders of about these millions of parameters, a tied vocabulary of 50,257 among them.
DECODERS = {20: (256, 7), 150: (768, 12), 350: (1024, 18), 1000: (1792, 18)}
AXES: dict[str, tuple[int, ...]] = {
    "images": (16, 64, 256, 1024),
    "samples": (1, 2, 4, 8, 16),
    "length": (10, 20, 50, 100, 200),
    "decoder": tuple(DECODERS),
}


@dataclass(frozen=True)
class Row:
    work: str
    axis: str
    images: int = 64
    samples: int = 5
    length: int = 20
    decoder: int = 150

    @property
    def value(self) -> int:
        return getattr(self, self.axis)

    @property
    def name(self) -> str:
        return f"{self.work}, {self.axis} {self.value}{' M' if self.axis == 'decoder' else ''}"


_tokenizer = functools.cache(vocabulary.tokenizer_of)
_judge = functools.cache(steps.Judge.of)


def captioner(row: Row, size: Size, device: str) -> EncoderDecoder:
    torch.manual_seed(0)
    tokenizer = _tokenizer(size.vocabulary)
    width, layers = DECODERS[row.decoder] if size is FULL else (size.width, size.layers)
    heads = width // 64 if size is FULL else size.heads
    with torch.device(device):
        vision = HFImageEncoder(config={"model_type": "vit", **size.vision})
        model = EncoderDecoder(
            tokenizer, vision, width=width, num_layers=layers, num_heads=heads, max_length=row.length + 2
        )
    vocabulary.favour_common_words(tokenizer, size.vocabulary, model.decoder.norm, model.decoder.embedding.weight)
    return model


def images(row: Row, size: Size, device: str) -> CaptionBatch:
    keys = [str(number) for number in range(row.images)]
    return CaptionBatch(keys, pixels=torch.randn(row.images, 3, size.image, size.image, device=device))


def captioned(row: Row, size: Size, device: str) -> CaptionBatch:
    """The images with `samples` captions each, all of them `length` tokens long after BOS."""
    batch = images(row, size, device)
    shape = (row.images, row.samples, row.length + 1)
    batch.tokens = torch.randint(4, size.vocabulary, shape, device=device)
    batch.mask = torch.ones(shape, dtype=torch.bool, device=device)
    return batch


def rollout(row: Row, size: Size, device: str) -> Work:
    model = captioner(row, size, device).eval()
    batch, decoding = images(row, size, device), Decoding("sample", max_length=row.length)

    @torch.no_grad()
    def work() -> Any:
        with torch.autocast(device, torch.bfloat16, cache_enabled=False):
            return model.generate(model.encode(batch), decoding, row.samples).tokens

    return work


def rows(tiny: bool) -> list[Row]:
    if tiny:
        return [Row(work, "samples", 2, samples, 4, 20) for work in WORKS for samples in (1, 2)]
    return [
        dataclasses.replace(Row(work, axis), **{axis: value})
        for work in WORKS
        for axis, values in AXES.items()
        for value in values
    ]


def measure(row: Row, tiny: bool, device: str, rounds: int, with_static: bool) -> list[Side]:
    if device == "cpu":
        return cell(row, tiny, device, rounds)
    # Steps that follow a profile of captured graphs in one process have ended in failed launches.
    return apart(cell, row, tiny, device, rounds)


def cell(row: Row, tiny: bool, device: str, rounds: int) -> list[Side]:
    size = TINY if tiny else FULL
    found: list[Side] = []

    def compare(work: Work) -> None:
        found.extend(in_turn({"capkit": work}, rounds, device, warm_up=2))

    try:
        if row.work == "rollout":
            compare(rollout(row, size, device))
        elif row.work == "self-critical step":
            task = steps.Row("encoder_decoder", row.images, row.samples, length=row.length)
            module, batch = steps.module_of(task, size, _judge(size, device), device, captioner(row, size, device))
            steps.in_training(module, batch, device, compare)
        else:
            model = captioner(row, size, device)
            learner = MLEModule(model, CrossEntropy(), AdamW(lr=1e-9), Constant(), Decoding())
            steps.in_training(learner, captioned(row, size, device), device, compare)
    except torch.OutOfMemoryError:
        found = [Side("capkit", math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, out_of_memory=True)]
    return found
