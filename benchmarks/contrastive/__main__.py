"""Contrastive training of CLIP beside open_clip on the same work, in one run.

    python -m benchmarks.contrastive [--models ViT-B/32 ViT-B/16] [--batches 8192 32768] [--out FILE] [--tiny]
    python -m benchmarks.contrastive --devices 2 [--models ViT-B/32] [--batches 32768] [--out FILE] [--tiny]
    python -m benchmarks.contrastive --objective dreamlip [--texts 1 4 8] [--models ViT-B/16] [--out FILE] [--tiny]

Both sides: CLIP of the same shape with random weights, the same pixels and 77 tokens a caption on the GPU, InfoNCE,
AdamW without clipping, bf16 autocast. What is timed is the optimizer step, batch on the GPU to updated weights.
Accumulated batches pass forward twice on both sides. open_clip runs as by default (amp_bf16) and with --torchcompile.
Without open_clip (pip install open_clip_torch) capkit's side runs alone.

Rows of their own, which are not the same work: captions of usual lengths, which capkit cuts to the longest of the
batch, and adapters on the text tower over image embeddings that were computed before.
"""

import argparse
import datetime
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.contrastive import run_capkit as ours
from benchmarks.contrastive import slots, spread
from benchmarks.contrastive.workloads import SIZES, TINY, Clock, Pairs, Row, Size, free_memory, random_pairs, run_steps

HAS_OPEN_CLIP = importlib.util.find_spec("open_clip") is not None
if HAS_OPEN_CLIP:
    from benchmarks.contrastive import run_open_clip as theirs

PLAIN, LOCKED, LORA = "plain", "image tower locked", "LoRA text tower, cached image embeddings"
SHORT = "captions of 7-40 tokens"
EAGER, COMPILED, CAPKIT = spread.EAGER, spread.COMPILED, spread.CAPKIT
PLAIN_BATCH = {"ViT-B/32": 1024, "ViT-B/16": 512, "tiny": 8}
TEXT_BATCH = {"ViT-B/32": 2048, "ViT-B/16": 2048, "tiny": 8}  # where the image tower does not train
MICRO_BATCHES = {"ViT-B/32": (1024, 512), "ViT-B/16": (512, 256), "tiny": (8,)}  # tried from the largest on
LARGE = 16_384  # from here on one step is timed after one that warms up


@dataclass
class Benchmark:
    """Rows as they are measured; a row is printed at once."""

    device: str
    with_compiled_peer: bool
    rows: list[Row] = field(default_factory=list)

    def run(self, size: Size, batches: Sequence[int]) -> None:
        plain, text = PLAIN_BATCH[size.name], TEXT_BATCH[size.name]
        pairs = random_pairs(size, max([plain, text, *batches]), self.device)
        short = random_pairs(size, max(plain, text), self.device, full=False, seed=1)
        self._capkit(size, pairs, short[:plain], batches)
        self._capkit_texts(size, pairs[:text], short[:text])
        if HAS_OPEN_CLIP:
            self._open_clip(size, pairs, batches)

    def _capkit(self, size: Size, pairs: Pairs, short: Pairs, batches: Sequence[int]) -> None:
        torch.compiler.reset()  # layers of one model count towards what may be compiled of the next
        gflop = 3 * (size.image_gflop + size.text_gflop)
        module = ours.module_of(ours.build(size), compiled=True)
        self._capkit_row(module, size, PLAIN, pairs[: len(short)], gflop)
        self._capkit_row(module, size, f"{PLAIN}, {SHORT}", short, gflop)

        def accumulate(batch: int, micro_batch: int) -> bool:
            module.micro_batch_size = micro_batch
            return self._capkit_row(module, size, accumulated(batch), pairs[:batch], gflop * 4 / 3)

        fitting(accumulate, batches, MICRO_BATCHES[size.name])

    def _capkit_texts(self, size: Size, pairs: Pairs, short: Pairs) -> None:
        torch.compiler.reset()
        module = ours.module_of(ours.locked_image(size), compiled=True)
        self._capkit_row(module, size, LOCKED, pairs, size.image_gflop + 3 * size.text_gflop)
        torch.compiler.reset()
        module = ours.module_of(ours.lora_on_cached_images(size), compiled=True)
        features = torch.nn.functional.normalize(torch.randn(len(pairs), size.joint, device=self.device), dim=-1)
        for work, part in ((LORA, pairs), (f"{LORA}, {SHORT}", short)):
            self._capkit_row(module, size, work, part, 2 * size.text_gflop, features)

    def _capkit_row(self, module: Any, size: Size, work: str, pairs: Pairs, gflop: float, features: Any = None) -> bool:
        batch = ours.batch_of(pairs, features)
        return self._row(
            size, work, CAPKIT, len(pairs), module.micro_batch_size or len(pairs), gflop,
            lambda clock, steps: ours.run_steps(clock, module, batch, steps, self.device),
        )  # fmt: skip

    def _open_clip(self, size: Size, pairs: Pairs, batches: Sequence[int]) -> None:
        number, text, gflop = PLAIN_BATCH[size.name], TEXT_BATCH[size.name], 3 * (size.image_gflop + size.text_gflop)
        step = theirs.plain_step(theirs.build(size, self.device, lock_image=True), pairs[:text], self.device)
        self._step_row(size, LOCKED, EAGER, text, text, size.image_gflop + 3 * size.text_gflop, step)
        del step
        micro_batches: Sequence[int] = MICRO_BATCHES[size.name]
        for side in (EAGER, COMPILED)[: 2 if self.with_compiled_peer else 1]:
            torch.compiler.reset()
            free_memory()
            model: Any = theirs.build(size, self.device)
            if side == COMPILED:  # for each batch size by itself, as a run of one size is
                model = torch.compile(model, dynamic=False)
            step = theirs.plain_step(model, pairs[:number], self.device)
            self._step_row(size, PLAIN, side, number, number, gflop, step)
            del step

            def accumulate(batch: int, micro_batch: int, model: Any = model, side: str = side) -> bool:
                step = theirs.accumulated_step(model, pairs[:batch], micro_batch, self.device)
                return self._step_row(size, accumulated(batch), side, batch, micro_batch, gflop * 4 / 3, step)

            micro_batches = fitting(accumulate, batches, micro_batches)
            del model, accumulate

    def _step_row(
        self, size: Size, work: str, side: str, batch: int, micro: int, gflop: float, step: Callable[[], torch.Tensor]
    ) -> bool:
        return self._row(size, work, side, batch, micro, gflop, lambda clock, n: run_steps(clock, step, n))

    def _row(
        self,
        size: Size,
        work: str,
        side: str,
        batch: int,
        micro_batch: int,
        gflop: float,
        measure: Callable[[Clock, int], None],
    ) -> bool:
        """Whether it fitted into memory."""
        free_memory()
        clock = Clock(self.device, warm_up=3 if micro_batch == batch else 1)
        try:
            measure(clock, 10 if micro_batch == batch else 1 if batch >= LARGE else 3)
        except torch.OutOfMemoryError:
            print(f"{size.name}, {work}, {side}: micro-batches of {micro_batch} do not fit", flush=True)
            return False
        row = clock.row(size.name, work, side, batch, micro_batch, gflop)
        self.rows.append(row)
        print(line(row), f"(first step {clock.seconds[0]:.1f} s, spread {row.spread:.1%})", flush=True)
        return True


def fitting(
    accumulate: Callable[[int, int], bool], batches: Sequence[int], micro_batches: Sequence[int]
) -> Sequence[int]:
    """All batches by the largest micro-batch with which the largest one fits into memory; what is left to try."""
    left = list(micro_batches)
    for batch in sorted(batches, reverse=True):
        while left and not accumulate(batch, left[0]):
            del left[0]
    return left


def accumulated(batch: int) -> str:
    return f"batch {batch:,}"


def checks(device: str) -> dict[str, float]:
    """Both sides' loss of the same embeddings, and the gradient in micro-batches beside that at once; in float32."""
    found: dict[str, float] = {}
    generator = torch.Generator(device).manual_seed(0)
    images, texts = torch.nn.functional.normalize(
        torch.randn(2, 1000, 64, generator=generator, device=device) + 0.3, dim=-1
    )
    scale = torch.tensor(20.0, device=device)
    if HAS_OPEN_CLIP:
        expected = float(theirs.loss_of(images, texts, scale))
        found["loss_open_clip"], found["loss_capkit"] = expected, float(ours.loss_of(images, texts, scale))
    model = ours.build(TINY).to(device)
    batch = ours.batch_of(random_pairs(TINY, 64, device, full=False))
    module = ours.module_of(model, compiled=False)
    whole = ours.gradient(module, batch)
    module.micro_batch_size = 7
    cut = ours.gradient(module, batch)
    found["gradient_cosine"] = float(torch.cosine_similarity(whole.double(), cut.double(), dim=0))
    found["gradient_norm_ratio"] = float(cut.double().norm() / whole.double().norm())
    return found


def line(row: Row) -> str:
    return (
        f"{row.model:9s} {row.work:42s} {row.side:25s} {row.micro_batch:5d} {row.seconds * 1e3:9.1f} ms "
        f"{row.pairs_per_second:8.0f} pairs/s {row.tflop_per_second:4.0f} TFLOP/s {row.peak_gib:5.1f} GiB "
        f"loss {row.loss:.3f}"
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown; ratios of pairs/s to both of open_clip's rows of the same work (trimmed captions: of full ones)."""
    lines = [
        "| model | work | side | micro-batch | pairs/s | TFLOP/s | peak GiB | x open_clip | x open_clip compiled |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    speed = {(row.model, row.work, row.side): row.pairs_per_second for row in rows}
    for row in sorted(rows, key=_order):
        work = row.work.removesuffix(f", {SHORT}")
        ratios = [
            f"{row.pairs_per_second / base:.2f}" if (base := speed.get((row.model, work, side))) else ""
            for side in (EAGER, COMPILED)
        ]
        flops = "" if row.work.endswith(SHORT) else f"{row.tflop_per_second:.0f}"
        lines.append(
            f"| {row.model} | {row.work} | {row.side} | {row.micro_batch} | {row.pairs_per_second:,.0f} | {flops} | "
            f"{row.peak_gib:.1f} | {ratios[0]} | {ratios[1]} |"
        )
    return "\n".join(lines)


def _order(row: Row) -> tuple[Any, ...]:
    other = row.work.startswith((LOCKED, LORA))
    return row.model, other, row.batch, row.work, (EAGER, COMPILED, CAPKIT).index(row.side)


def lora_gains(rows: Sequence[Row], size: Size) -> list[dict[str, Any]]:
    """LoRA on cached image embeddings over training with a locked image tower: as measured, and by arithmetic."""
    speed = {(row.work, row.side): row.pairs_per_second for row in rows if row.model == size.name}
    arithmetic = (size.image_gflop + 3 * size.text_gflop) / (2 * size.text_gflop)
    return [
        {
            "model": size.name,
            "over": f"{side}, {LOCKED}",
            "measured": speed[LORA, CAPKIT] / speed[LOCKED, side],
            "arithmetic": arithmetic,
            "share": speed[LORA, CAPKIT] / speed[LOCKED, side] / arithmetic,
        }
        for side in (EAGER, CAPKIT)
        if (LOCKED, side) in speed
    ]


def about(device: str) -> dict[str, str]:
    return {
        "card": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "open_clip": theirs.VERSION if HAS_OPEN_CLIP else "not installed",
        "date": datetime.date.today().isoformat(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--batches", type=int, nargs="*", default=[8192, 32768], help="effective batches")
    parser.add_argument("--no-compiled-peer", action="store_true", help="leave out open_clip --torchcompile")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU: shows that it runs, not how fast")
    parser.add_argument("--devices", type=int, nargs="*", default=[], help="only whole batches, on so many GPUs each")
    parser.add_argument("--objective", choices=["info_nce", "dreamlip"], default="info_nce")
    parser.add_argument("--texts", type=int, nargs="+", default=[1, 4, 8], help="of an image, for --objective dreamlip")
    parser.add_argument("--out", type=Path, help="write all numbers as JSON too")
    options = parser.parse_args(arguments)
    if options.objective == "dreamlip":
        several_texts(options)
        return
    if not HAS_OPEN_CLIP:
        print("open_clip is not installed (pip install open_clip_torch): capkit's side runs alone", flush=True)
    device = "cpu" if options.tiny else "cuda"
    if options.devices:
        spread_over(options)
        return
    sizes = [TINY] if options.tiny else [SIZES[name] for name in options.models]
    benchmark = Benchmark(device, with_compiled_peer=not options.no_compiled_peer)
    result: dict[str, Any] = {"about": about(device), "checks": checks(device), "lora": []}
    print(result["about"], result["checks"], sep="\n", flush=True)
    for size in sizes:
        benchmark.run(size, [16, 24] if options.tiny else options.batches)
        result["lora"] += lora_gains(benchmark.rows, size)
        result["rows"] = [row.as_dict() for row in benchmark.rows]
        if options.out:
            options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(benchmark.rows))
    for gain in result["lora"]:
        print(
            f"{gain['model']}: {LORA}, over {gain['over']}: {gain['measured']:.2f} x; by arithmetic "
            f"{gain['arithmetic']:.2f} x; {gain['share']:.0%} of it"
        )


def several_texts(options: argparse.Namespace) -> None:
    """`--objective dreamlip`: how a step grows with the number of texts."""
    device = "cpu" if options.tiny else "cuda"
    print(about(device), flush=True)
    found: list[Row] = []
    for size in [TINY] if options.tiny else [SIZES[name] for name in options.models]:
        rows = slots.measure(size, options.texts, device)
        print(slots.table(rows), flush=True)
        found += rows
        if options.out:
            result = {"about": about(device), "rows": [row.as_dict() for row in found]}
            options.out.write_text(json.dumps(result, indent=2) + "\n")


def spread_over(options: argparse.Namespace) -> None:
    """`--devices`: the batches over several processes."""
    sides = [EAGER, COMPILED] if HAS_OPEN_CLIP else []
    sides = [CAPKIT, *sides[: 1 if options.no_compiled_peer else 2]]
    print(about("cpu" if options.tiny else "cuda"), flush=True)
    rows: list[tuple[int, Row]] = []
    for name in ["tiny"] if options.tiny else options.models:
        for batch in [16] if options.tiny else options.batches:
            rows += spread.run(sides, name, batch, MICRO_BATCHES[name][0], options.devices, gpu=not options.tiny)
            if options.out:
                kept = [{"devices": number, **row.as_dict()} for number, row in rows]
                options.out.write_text(json.dumps({"rows": kept}, indent=2) + "\n")
    print(spread.table(rows))


if __name__ == "__main__":
    main()
