"""`dry_run=true`: what a run would be, without running it."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from capkit.data.datamodule import CaptionDataModule
from capkit.data.images import BadImage
from capkit.data.sources.base import DataSource
from capkit.models.dual_encoders.trainable import TrainableDualEncoder
from capkit.train.header import num_parameters
from capkit.train.mle_module import MLEModule
from capkit.train.rl.module import RLModule
from capkit.train.train_module import TrainModule
from capkit.types import CaptionBatch
from capkit.utils.console import Screen, phase, print_on, speaks

GIB, MIB = 2**30, 2**20


def memory_bytes(model: nn.Module, precision: str) -> int:
    """Weights, gradients and Adam's two moments. Activations come on top and depend on the micro-batch.

    Under mixed precision the weights stay in 32 bits, and autocast's 16-bit copies are counted once.
    """
    trainable, frozen = num_parameters(model)
    copies = 2 * (trainable + frozen) if "mixed" in precision else 0
    return 4 * (trainable + frozen) + 4 * trainable * 3 + copies


def forward(module: TrainModule, batch: CaptionBatch) -> Any:
    """The forward pass of a step, without what sampling and rewards take; None where it is not known."""
    model: Any = module.model
    if isinstance(model, TrainableDualEncoder):
        return model(batch)
    if isinstance(module, MLEModule):
        return module.objective(model, batch, 0)
    if isinstance(module, RLModule) and batch.tokens is not None and batch.mask is not None:
        tokens, mask = (x[:, :1].repeat(1, module.objective.num_samples, 1) for x in (batch.tokens, batch.mask))
        return model.token_losses(model.encode(batch), tokens, mask, 0.0)
    return None


def attention_flop(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Of the one kernel of attention that PyTorch's counter leaves out."""
    return sdpa_flop_count(query, key, value)


def measure(
    compute: Callable[[int], Any], parameters: Iterable[nn.Parameter], mixed: bool
) -> tuple[float, float] | None:
    """GFLOP of an image's forward pass (matrix products and convolutions), and MiB it keeps for the backward pass.

    `compute` takes a number of images. What two take more than one: 16-bit copies of weights and the like are not
    counted. None where it gives None.
    """
    weights = {p.untyped_storage().data_ptr() for p in parameters}
    one, two = (_cost(partial(compute, count), weights, mixed) for count in (1, 2))
    return None if one is None or two is None else ((two[0] - one[0]) / 1e9, (two[1] - one[1]) / MIB)


def _cost(compute: Callable[[], Any], weights: set[int], mixed: bool) -> tuple[int, int] | None:
    """FLOP, and bytes that are kept beside the weights."""
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return value.detach()  # an operation that keeps its own output would keep itself, and the model, for ever

    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={kernel: attention_flop})
    casts = torch.autocast("cpu", torch.bfloat16, enabled=mixed)
    with casts, counter, saved_tensors_hooks(keep, lambda value: value):
        output = compute()  # held until the sums are made, with what it keeps
    return None if output is None else (counter.get_total_flops(), sum(kept.values()))


def print_plan(module: TrainModule, data: CaptionDataModule, precision: str) -> None:
    """What stands below the header: parts, batch, memory, the first picture of each split, the command for `plan`."""
    if not speaks():
        return
    table = Table("part", "trainable", "frozen", title="parameters")
    for name, part in module.model.named_children():
        trainable, frozen = num_parameters(part)
        table.add_row(name, f"{trainable:,}", f"{frozen:,}")
    trainable, frozen = num_parameters(module.model)
    table.add_row("all", f"{trainable:,}", f"{frozen:,}", style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    Screen().print(table)
    for line in [*plan_lines(module, data, precision), *first_pictures(data)]:
        print_on(line)
    with phase("measuring a step"):
        split = "train" if data.sources["val"] is None else "val"
        batch = next(iter(data.eval_dataloader(split, limit=data.world_size)))
        compute = partial(_forward_copies, module, batch)
        measured = measure(compute, module.parameters(), "mixed" in precision) if len(batch) else None
    if measured is not None:
        tensors = sum(parameter.requires_grad for parameter in module.model.parameters())
        print_on(on_paper(trainable, frozen, tensors, *measured))
    print_on("dry run: nothing was trained or written")


def _forward_copies(module: TrainModule, batch: CaptionBatch, count: int) -> Any:
    """The forward pass of the batch's first image, `count` times over."""
    return forward(module, batch.select([0] * count))


def first_pictures(data: CaptionDataModule) -> list[str]:
    """The first picture of each split, opened: key and size, or why it cannot be used. None without pictures."""
    if data.features is not None or not data.pictures:
        return []
    return [
        f"{split:<7} {_first_picture(source)}"
        for split, source in data.sources.items()
        if source is not None and len(source)
    ]


def _first_picture(source: DataSource) -> str:
    key = source.record(0).key
    try:
        height, width = source.image(0).shape[:2]
    except BadImage as error:
        return f"the first picture, {key!r}, cannot be used: {error}"
    return f"the first picture, {key!r}, is {width} x {height}"


def on_paper(trainable: int, frozen: int, tensors: int, gflop: float, activation_mib: float) -> str:
    """The command that plans this run for GPUs that are not here."""
    return (
        f"on many GPUs: capkit plan trainable={trainable} frozen={frozen} tensors={tensors} "
        f"gflop_per_image={gflop:.4g} activation_mib_per_image={activation_mib:.4g}"
    )


def plan_lines(module: TrainModule, data: CaptionDataModule, precision: str) -> list[str]:
    ranks = data.world_size
    share = data.batch_size // ranks
    micro = min(module.micro_batch_size or share, share)
    gib = memory_bytes(module.model, precision) / GIB
    texts = f"{data.captions_per_image} captions"
    if data.captions_of == "regions":
        texts = f"up to {data.regions_per_image} regions"
    return [
        f"batch   {data.batch_size} images a step = {ranks} ranks x {-(-share // micro)} micro-batches of {micro}, "
        f"{texts} an image",
        f"memory  {gib:.2f} GiB a rank for weights, gradients and Adam's moments, plus activations of one micro-batch",
    ]
