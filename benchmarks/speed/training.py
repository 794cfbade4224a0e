"""Sections mle and update: training steps, against transformers' VisionEncoderDecoder as a user would train it.

Both sides: ViT-B/16 and a cross-attending decoder of 12 layers, random weights, bf16 autocast over float32 weights,
gradients clipped to norm 1, fused AdamW, all weights trained; batches lie on the GPU. capkit's steps are those of
Lightning's Trainer with its guard and recorder. Where an image has several captions, capkit encodes it once;
transformers encodes it for each: in one batch (update), or a caption of each image at a time (mle), whose gradients
add up. `update` is the second half of a self-critical step: samples and advantages are given.

A step's floating-point operations, with d = width, N = image tokens, T = a caption's tokens, V = vocabulary, 2 for
each multiplication with its addition, forward and twice as much backward:

    image encoder, a layer   24 N d^2 + 4 N^2 d, and patches once
    decoder, a layer         T (28 d^2 + 4 T d + 4 N d) for each caption, 4 N d^2 (keys and values) for each image
    head                     2 T d V for each caption

The share is of the rate of a bf16 product of 8192 x 8192 matrices in the same run. Operations that capkit does not do
(an image encoded again for each caption) or does twice (logits) count once on both sides.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, VisionEncoderDecoderModel

from benchmarks.speed.measure import Side, in_turn, matmul_rate
from benchmarks.speed.rollout import FULL, TINY, Size, tokenizer_of
from benchmarks.speed.steps import Steps
from capkit.decoding.config import Decoding
from capkit.models.captioners.encoder_decoder import EncoderDecoder
from capkit.models.encoders.image import HFImageEncoder
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.objectives.policy.self_critical import SelfCritical
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Linear
from capkit.scorers.reward import Reward, RewardTerm
from capkit.train.mle_module import MLEModule
from capkit.train.rl.module import RLModule
from capkit.train.rl.rollout import Rollout
from capkit.train.train_module import TrainModule
from capkit.types import CaptionBatch, Samples


@dataclass(frozen=True)
class Row:
    work: str
    images: int
    captions: int
    length: int

    @property
    def name(self) -> str:
        return f"{self.work} {self.images} x {self.captions} x {self.length}"

    def flop(self, size: Size) -> float:
        d, n, t = size.width, (size.image // size.patch) ** 2 + 1, self.length
        vision = size.layers * (24 * n * d**2 + 4 * n**2 * d) + 2 * (n - 1) * 3 * size.patch**2 * d
        of_caption = size.layers * t * (28 * d**2 + 4 * t * d + 4 * n * d) + 2 * t * d * size.vocabulary
        return 3.0 * self.images * (vision + size.layers * 4 * n * d**2 + self.captions * of_caption)


@dataclass
class Data:
    """A batch on the device: tokens are BOS and `length` more, all learned."""

    pixels: Tensor
    tokens: Tensor
    advantages: Tensor

    @classmethod
    def of(cls, row: Row, size: Size, device: str) -> "Data":
        torch.manual_seed(1)
        shape = row.images, row.captions
        pixels = torch.randn(row.images, 3, size.image, size.image, device=device)
        tokens = torch.randint(4, size.vocabulary, (*shape, row.length + 1), device=device)
        return cls(pixels, tokens, torch.randn(shape, device=device))


class Given(RLModule):
    """Updates on a rollout that is given."""

    given: Rollout

    def rollout(self, batch: CaptionBatch, step: int) -> tuple[Rollout, dict[str, Tensor]]:
        return self.given, {}


def no_reward(batch: CaptionBatch, samples: Samples) -> Tensor:
    return torch.zeros(len(batch), len(samples.texts[0]))


def module_of(row: Row, size: Size, data: Data, device: str, **settings: Any) -> tuple[TrainModule, CaptionBatch]:
    torch.manual_seed(0)
    with torch.device(device):
        vision = HFImageEncoder(config={"model_type": "vit", **size.vision})
        model = EncoderDecoder(
            tokenizer_of(size), vision, width=size.width, num_layers=size.layers, num_heads=size.heads
        )
    mask = torch.ones_like(data.tokens, dtype=torch.bool)
    batch = CaptionBatch([str(i) for i in range(row.images)], pixels=data.pixels, tokens=data.tokens, mask=mask)
    optimizer = AdamW(lr=1e-5)
    if row.work == "mle":
        module: TrainModule = MLEModule(model, CrossEntropy(), optimizer, Linear(), Decoding(), **settings)
    else:
        reward = Reward({"none": RewardTerm(no_reward)})
        module = Given(
            model, SelfCritical(num_samples=row.captions), reward, optimizer, Linear(), Decoding(), **settings
        )
        logprobs = torch.zeros(mask[..., 1:].shape, device=device)
        ended = torch.zeros(mask.shape[:2], dtype=torch.bool, device=device)
        samples = Samples([[""] * row.captions] * row.images, data.tokens, mask, ended, logprobs)
        module.gap_was_told = True  # the samples are not the policy's own
        module.given = Rollout(batch, samples, mask[..., 1:], data.advantages)
    return module, batch


def capkit_side(row: Row, size: Size, data: Data, device: str, **settings: Any) -> Steps:
    return Steps(*module_of(row, size, data, device, **settings), device)


def transformers_side(row: Row, size: Size, data: Data, device: str, compiled: bool) -> Callable[[], Any]:
    torch.manual_seed(0)
    decoder = AutoConfig.for_model(**size.gpt2, is_decoder=True, add_cross_attention=True)
    vision = AutoConfig.for_model("vit", **size.vision)
    config = AutoConfig.for_model("vision-encoder-decoder", encoder=vision.to_dict(), decoder=decoder.to_dict())
    config.decoder_start_token_id, config.pad_token_id = 0, 1
    with torch.device(device):
        model: Any = VisionEncoderDecoderModel(config)
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=device == "cuda")
    forward = torch.compile(model, dynamic=False) if compiled else model

    def mle(number: int) -> Tensor:
        return forward(pixel_values=data.pixels, labels=data.tokens[:, number, 1:]).loss / row.captions

    def policy_gradient() -> Tensor:
        tokens = data.tokens.flatten(0, 1)
        pixels = data.pixels.repeat_interleave(row.captions, 0)
        logits = forward(pixel_values=pixels, decoder_input_ids=tokens[:, :-1]).logits
        logprobs = logits.float().log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
        return -(logprobs * data.advantages.flatten()[:, None]).mean()

    def work() -> None:
        losses = [lambda n=n: mle(n) for n in range(row.captions)] if row.work == "mle" else [policy_gradient]
        for loss in losses:
            with torch.autocast(device, torch.bfloat16):
                value = loss()
            value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return work


@dataclass(frozen=True)
class Section:
    full: list[Row]
    tiny: list[Row]

    def rows(self, tiny: bool) -> list[Row]:
        return self.tiny if tiny else self.full

    def measure(self, row: Row, tiny: bool, device: str, rounds: int, with_compiled: bool) -> list[Side]:
        size = TINY if tiny else FULL
        data = Data.of(row, size, device)
        build: dict[str, Callable[[], Callable[[], Any]]] = {
            "capkit": lambda: capkit_side(row, size, data, device),
            "transformers": lambda: transformers_side(row, size, data, device, compiled=False),
        }
        if not tiny:
            for name in ("compile", "recompute"):
                build[f"capkit, {name}"] = partial(capkit_side, row, size, data, device, **{name: True})
            if row.work == "update":
                build["capkit, op by op"] = partial(capkit_side, row, size, data, device, graph=False)
        if with_compiled:
            build["transformers, compiled"] = lambda: transformers_side(row, size, data, device, compiled=True)
        works, held = {}, {}
        for name, builder in build.items():
            before = torch.cuda.memory_allocated() if device == "cuda" else 0
            works[name] = builder()
            held[name] = (torch.cuda.memory_allocated() if device == "cuda" else 0) - before
        sides = in_turn(works, rounds, device, held=held)
        rate = matmul_rate(device, 64 if tiny else 8192)
        for side in sides:
            side.per_second = 1000 * row.images * row.captions / side.ms
            side.share = row.flop(size) / (side.ms / 1000) / rate
        for work in works.values():
            if isinstance(work, Steps):
                work.close()
        return sides


MLE = Section([Row("mle", 256, 1, 32), Row("mle", 256, 5, 32)], [Row("mle", 2, 2, 6)])
UPDATE = Section([Row("update", 64, 5, 20)], [Row("update", 2, 2, 6)])
