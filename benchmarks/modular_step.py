"""A self-critical step of CNM and CVLNM at paper size: python -m benchmarks.modular_step [--tiny] [--out FILE]

100 images of 36 regions of width 2,048, one sampled and one greedy caption of 16 words each, CIDEr-D, one update; in
micro-batches as published (10 and 50) and whole. Weights are random and write common words; batch on the device to
updated weights, in mixed precision, as Lightning runs it. A table in Markdown: milliseconds of a step, the smallest and
the median of the rounds, images a second, and the GPU's peak memory.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import vocabulary
from benchmarks.speed.measure import milliseconds
from benchmarks.speed.step import in_training
from benchmarks.speed.step_setting import NUM_DOCUMENTS
from capkit.decoding.config import Decoding
from capkit.models.captioners.modular import ModularCaptioner
from capkit.objectives.policy.self_critical import SelfCritical
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Constant
from capkit.scorers.cider import CiderD
from capkit.scorers.reward import Reward, RewardTerm
from capkit.train.rl.module import RLModule
from capkit.types import CaptionBatch

GIB = 2**30


@dataclass(frozen=True)
class Size:
    """Of the models and of what they read and write; TINY tries the program on a CPU."""

    width: int = 1000
    attention_width: int = 512
    feature_width: int = 2048
    regions: int = 36
    images: int = 100
    vocabulary: int = 10_000
    length: int = 17  # 16 words and EOS
    micro_batches: tuple[int, int] = (10, 50)
    slots: int = 1000  # of CVLNM's memory, as wide


TINY = Size(16, 8, 16, 3, 2, 300, 4, (1, 1), 8)
KINDS: dict[str, dict[str, Any]] = {
    "CNM": {"controller": "lstm", "blocks": 2},
    "CVLNM": {"controller": "self_attention", "blocks": 1},
}


@dataclass(frozen=True)
class Row:
    captioner: str
    micro_batch: int
    fastest_ms: float
    median_ms: float
    images_per_second: float
    peak_gib: float


def module_of(kind: str, size: Size, micro_batch: int, device: str) -> tuple[RLModule, CaptionBatch]:
    """A captioner with its reward prepared, and a batch."""
    torch.manual_seed(0)
    tokenizer = vocabulary.tokenizer_of(size.vocabulary)
    model = ModularCaptioner(
        tokenizer, feature_width=size.feature_width, width=size.width, attention_width=size.attention_width,
        max_length=size.length + 1, memory=[size.slots, size.slots] if kind == "CVLNM" else None, **KINDS[kind],
    )  # fmt: skip
    common = tokenizer.convert_tokens_to_ids(vocabulary.common_words(size.vocabulary))
    with torch.no_grad():
        model.head.bias[common] += 12.0
    references = vocabulary.references_of(size.vocabulary, size.images)
    reward = Reward({"cider": RewardTerm(CiderD())})
    corpus = vocabulary.references_of(size.vocabulary, min(NUM_DOCUMENTS, 100 * size.images))
    reward.prepare(lambda key: None, lambda: corpus, device)
    objective = SelfCritical(Decoding("sample", max_length=size.length))
    module = RLModule(
        model, objective, reward, AdamW(lr=1e-9), Constant(), Decoding(), micro_batch_size=micro_batch
    )  # fmt: skip
    keys = [str(number) for number in range(size.images)]
    features = torch.randn(size.images, size.regions, size.feature_width, generator=torch.Generator().manual_seed(0))
    batch = CaptionBatch(keys, features=features, references=references, metadata=[{} for _ in keys])
    return module.to(device), batch.to(device)


def measure(kind: str, size: Size, micro_batch: int, device: str, rounds: int) -> Row:
    module, batch = module_of(kind, size, micro_batch, device)
    found: list[float] = []

    def time(step: Callable[[], Any]) -> None:
        for _ in range(2):
            step()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        found.extend(milliseconds(step, device) for _ in range(rounds))

    in_training(module, batch, device, time)
    peak = torch.cuda.max_memory_allocated() / GIB if device == "cuda" else 0.0
    median = statistics.median(found)
    return Row(kind, micro_batch, min(found), median, 1e3 * size.images / median, peak)


def table(rows: Sequence[Row], size: Size, device: str) -> str:
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    lines = [
        f"{where}, torch {torch.__version__}, bf16-mixed, {size.images} images of {size.regions} regions\n",
        "| captioner | images at once | ms a step: fastest | median | images/s | peak GiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        peak = f"{row.peak_gib:.1f}" if device == "cuda" else ""
        lines.append(
            f"| {row.captioner} | {row.micro_batch} | {row.fastest_ms:,.0f} | {row.median_ms:,.0f} | "
            f"{row.images_per_second:,.0f} | {peak} |"
        )
    return "\n".join(lines)


def main(size: Size, rounds: int, out: Path | None = None) -> list[Row]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    for kind, own in zip(KINDS, size.micro_batches, strict=True):
        rows += [measure(kind, size, micro_batch, device, rounds) for micro_batch in (own, size.images)]
    print(table(rows, size, device))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tiny", action="store_true", help="on a CPU, to try it")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    main(TINY if given.tiny else Size(), given.rounds, given.out)
