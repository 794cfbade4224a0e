"""A step of GRPO on a chat model that reads pictures, beside TRL's `GRPOTrainer`: `python -m benchmarks.chat_grpo`.

    python -m benchmarks.chat_grpo [--images 8] [--samples 8] [--length 64] [--rounds 5] [--out FILE] [--tiny]

Qwen2.5-VL of some 0.5 B numbers with random weights, the same for both; pictures of 448 x 448, all captions `--length`
tokens long, all weights but the image tower's trained, AdamW, bf16 autocast, no KL, no gradient checkpointing,
a reward that costs nothing. A step is rollout, reward and one update of all captions in one batch. Sides take turns:
after each of TRL's steps comes one of capkit's. Torch counts the operations of one more step of each.
TRL (`pip install trl`) samples with transformers' `generate` here, not with vLLM. Without it capkit runs alone.
"""

import argparse
import copy
import importlib.util
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed import vocabulary
from benchmarks.speed.measure import milliseconds
from benchmarks.speed.step import in_training
from capkit.decoding.config import Decoding
from capkit.models.captioners.chat_vlm import ChatVLM
from capkit.objectives.policy.ppo import PPO
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.scorers.custom import Custom
from capkit.scorers.reward import Reward, RewardTerm
from capkit.train.rl.module import RLModule
from capkit.types import CaptionBatch

HAS_TRL = importlib.util.find_spec("trl") is not None
QUESTION = "Describe this image."
WARM_UP = 2


@dataclass(frozen=True)
class Size:
    text: dict[str, Any]
    vision: dict[str, Any]
    image: int
    vocabulary: int


def size_of(width: int, layers: int, heads: int, vision: int, depth: int, image: int, words: int) -> Size:
    half = width // heads // 2
    sections = [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]
    rope = {"rope_type": "default", "mrope_section": sections, "rope_theta": 1_000_000.0}
    text = {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": heads // 4, "intermediate_size": 4 * width, "max_position_embeddings": 2048,
        "rope_parameters": rope,
    }  # fmt: skip
    tower = {
        "depth": depth, "num_heads": heads, "patch_size": 14, "hidden_size": vision, "intermediate_size": 2 * vision,
        "out_hidden_size": width, "fullatt_block_indexes": [depth // 2, depth - 1],
    }  # fmt: skip
    return Size(text, tower, image, words)


FULL = size_of(width=1024, layers=24, heads=16, vision=1024, depth=12, image=448, words=50_257)
TINY = size_of(width=64, layers=2, heads=4, vision=32, depth=2, image=56, words=300)


@dataclass
class Side:
    """Milliseconds of steps, operations of one, and most memory."""

    ms: list[float] = field(default_factory=list)
    tflop: float = 0.0
    gib: float = 0.0


def constant_reward(images: list[Any], texts: list[str]) -> list[float]:
    return [float(len(set(text))) for text in texts]


def captioner_of(size: Size, length: int, device: str) -> ChatVLM:
    torch.manual_seed(0)
    tokenizer = vocabulary.tokenizer_of(size.vocabulary)
    with torch.device(device):
        return ChatVLM(
            config={"model_type": "qwen2_5_vl", "text_config": size.text, "vision_config": size.vision},
            tokenizer=tokenizer, question=QUESTION, image_size=size.image, max_length=length + 32, freeze=["vision"],
        )  # fmt: skip


def module_of(model: ChatVLM, size: Size, images: int, samples: int, length: int) -> tuple[RLModule, CaptionBatch]:
    rollout = Decoding("sample", max_length=length, min_length=length - 1)
    objective = PPO(rollout, samples, inner_updates=1, reduction="token")
    reward = Reward({"custom": RewardTerm(Custom(function=constant_reward))})
    pictures = pictures_of(size, images)
    keys = [str(number) for number in range(images)]
    reward.prepare(dict(zip(keys, map(np.asarray, pictures), strict=True)).get, lambda: [], "cpu")
    module = RLModule(model, objective, reward, AdamW(lr=1e-6), Constant(), Decoding())
    pixels = torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures])
    batch = CaptionBatch(keys, pixels=(pixels / 255 - 0.5) / 0.5, references=[["a"]] * images, metadata=[{}] * images)
    return module, batch


def pictures_of(size: Size, images: int) -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (size.image, size.image, 3), np.uint8)) for _ in range(images)]


def attention_operations(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
    """Two products. torch 2.11 counts none where several heads of queries share a head of keys."""
    rows, heads, queries, width = query
    return 2 * rows * heads * queries * key[-2] * (width + value[-1])


def gradient_operations(
    slope: Any, query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **more: Any
) -> int:
    """Five products: the scores once more, and the gradients of values, scores, queries and keys."""
    rows, heads, queries, width = query
    return 2 * rows * heads * queries * key[-2] * (3 * width + 2 * value[-1])


def product_operations(first: Any, second: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
    """torch 2.11 has no place for the type of the output, which some kernels of TRL give."""
    *rows, inner = first
    return 2 * math.prod(rows) * inner * second[-1]


def sum_operations(_: Any, first: Any, second: Any, *rest: Any, **more: Any) -> int:
    return product_operations(first, second)


def counter_of_operations() -> FlopCounterMode:
    kinds = ("efficient", "flash", "cudnn")
    names = [f"_scaled_dot_product_{kind}_attention" for kind in kinds]
    forward = {getattr(torch.ops.aten, name): attention_operations for name in names}
    backward = {getattr(torch.ops.aten, f"{name}_backward"): gradient_operations for name in names}
    aten = torch.ops.aten
    products = {aten.bmm: product_operations, aten.addmm: sum_operations, aten.baddbmm: sum_operations}
    return FlopCounterMode(display=False, custom_mapping={**products, **forward, **backward})


def count(work: Callable[[], Any]) -> float:
    """Tera operations of products and attention."""
    with counter_of_operations() as counter:
        work()
    return counter.get_total_flops() / 1e12


def peak(device: str) -> float:
    found = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return found


def alone(step: Callable[[], Any], device: str, rounds: int) -> dict[str, Side]:
    side = Side()
    for _ in range(WARM_UP):
        step()
    peak(device)
    side.ms = [milliseconds(step, device) for _ in range(rounds)]
    side.gib, side.tflop = peak(device), count(step)
    return {"capkit": side}


def in_turn(
    step: Callable[[], Any], network: Any, processor: Any, size: Size, device: str, options: argparse.Namespace
) -> dict[str, Side]:
    """Steps of TRL's trainer, and after each one of capkit's."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    sides = {"capkit": Side(), "TRL": Side()}

    class Turns(transformers.TrainerCallback):  # type: ignore[misc]
        number = 0
        counter: Any = None

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.counts = self.number == WARM_UP + options.rounds
            if self.counts:
                self.counter = counter_of_operations()
                self.counter.__enter__()
            if device == "cuda":
                torch.cuda.synchronize()
            peak(device)
            self.start = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if device == "cuda":
                torch.cuda.synchronize()
            elapsed, gib = 1000 * (time.perf_counter() - self.start), peak(device)
            if self.counts:
                self.counter.__exit__(None, None, None)
                sides["TRL"].tflop = self.counter.get_total_flops() / 1e12
                sides["capkit"].tflop = count(step)
            elif self.number < WARM_UP:
                step()
            else:
                sides["TRL"].ms.append(elapsed)
                sides["capkit"].ms.append(milliseconds(step, device))
                sides["TRL"].gib, sides["capkit"].gib = (
                    max(sides["TRL"].gib, gib),
                    max(sides["capkit"].gib, peak(device)),
                )
            self.number += 1

    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    pictures = pictures_of(size, options.images)
    data = Dataset.from_dict({"prompt": [asked] * options.images, "images": [[picture] for picture in pictures]})
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder, per_device_train_batch_size=options.images * options.samples,
            num_generations=options.samples, max_completion_length=options.length, steps_per_generation=1,
            generation_kwargs={"min_new_tokens": options.length}, max_steps=WARM_UP + options.rounds + 1,
            gradient_checkpointing=False, bf16=True, use_cpu=device == "cpu", report_to="none",
            save_strategy="no", logging_strategy="no", learning_rate=1e-6, beta=0.0, disable_tqdm=True,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=network,
            args=settings,
            processing_class=processor,
            train_dataset=data,
            reward_funcs=lambda completions, **_: constant_reward([], [answer[0]["content"] for answer in completions]),
            callbacks=[Turns()],
        )
        trainer.train()
    return sides


def table(sides: dict[str, Side]) -> str:
    lines = ["| side | ms a step (median, range) | over capkit | TFLOP | GiB |", "|---" * 5 + "|"]
    own = sides["capkit"]
    for name, side in sides.items():
        ratio = statistics.median(ms / ours for ms, ours in zip(side.ms, own.ms, strict=True))
        lines.append(
            f"| {name} | {statistics.median(side.ms):.0f} [{min(side.ms):.0f} .. {max(side.ms):.0f}] | {ratio:.2f} | "
            f"{side.tflop:.3g} | {side.gib:.1f} |"
        )
    return "\n".join(lines)


def main(words: list[str] | None = None) -> dict[str, Side]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write all numbers here, as JSON")
    parser.add_argument("--tiny", action="store_true", help="a few layers, to try the program on a CPU")
    options = parser.parse_args(words)
    if options.tiny:
        options.images, options.samples, options.length, options.rounds = 2, 2, 6, 2
    size, device = TINY if options.tiny else FULL, "cuda" if torch.cuda.is_available() else "cpu"
    model = captioner_of(size, options.length, device)
    network, processor = copy.deepcopy(model.model), model.processor
    module, batch = module_of(model, size, options.images, options.samples, options.length)
    found: dict[str, Side] = {}

    def measure(step: Callable[[], Any]) -> None:
        if HAS_TRL:
            found.update(in_turn(step, network, processor, size, device, options))
        else:
            found.update(alone(step, device, options.rounds))

    in_training(module, batch.to(device), device, measure)
    numbers = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"{numbers:.0f} M numbers, {options.images} images x {options.samples} x {options.length}, {device}")
    print(table(found))
    if options.out is not None:
        options.out.write_text(json.dumps({name: asdict(side) for name, side in found.items()}))
    return found


if __name__ == "__main__":
    main()
