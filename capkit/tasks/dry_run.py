"""`dry_run=true`: what a run would be, without running it."""

from rich.console import Console
from rich.table import Table
from torch import nn

from capkit.data.datamodule import CaptionDataModule
from capkit.training_step import OptimizerStep

GIB = 2**30


def count(module: nn.Module) -> tuple[int, int]:
    """Trainable and frozen parameters."""
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return trainable, sum(p.numel() for p in module.parameters()) - trainable


def memory_bytes(model: nn.Module, precision: str) -> int:
    """Weights, gradients and Adam's two moments. Activations come on top and depend on the micro-batch.

    Under mixed precision the weights stay in 32 bits, and autocast's 16-bit copies are counted once.
    """
    trainable, frozen = count(model)
    copies = 2 * (trainable + frozen) if "mixed" in precision else 0
    return 4 * (trainable + frozen) + 4 * trainable * 3 + copies


def print_plan(module: OptimizerStep, data: CaptionDataModule, total_steps: int, precision: str) -> None:
    console = Console()
    table = Table("part", "trainable", "frozen", title="parameters")
    for name, part in module.model.named_children():
        trainable, frozen = count(part)
        table.add_row(name, f"{trainable:,}", f"{frozen:,}")
    trainable, frozen = count(module.model)
    table.add_row("all", f"{trainable:,}", f"{frozen:,}", style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)
    for line in plan_lines(module, data, total_steps, precision):
        console.print(line, highlight=False)


def plan_lines(module: OptimizerStep, data: CaptionDataModule, total_steps: int, precision: str) -> list[str]:
    ranks = data.world_size
    share = data.batch_size // ranks
    micro = min(module.micro_batch_size or share, share)
    gib = memory_bytes(module.model, precision) / GIB
    images = data.num_images("train")
    return [
        f"batch   {data.batch_size} images a step = {ranks} ranks x {-(-share // micro)} micro-batches of {micro}, "
        f"{data.captions_per_image} captions an image",
        f"steps   {total_steps:,} = {total_steps / data.steps_per_epoch:.2f} epochs of {data.steps_per_epoch:,} "
        f"({images:,} training images)",
        f"memory  {gib:.2f} GiB a rank for weights, gradients and Adam's moments, plus activations of one micro-batch",
        "dry run: nothing was trained or written",
    ]
