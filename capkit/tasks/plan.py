"""task=plan: estimates memory, step time and scaling of a run without starting it (docs/plan.md)."""

from omegaconf import DictConfig
from rich.table import Table

from capkit.config.instantiate import plain
from capkit.distributed.cost_model import SHARDED, STRATEGIES, ClusterSpec, StepWorkload, gpu_of, memory, plan
from capkit.utils.console import Screen, print_on


def run(cfg: DictConfig) -> dict[str, float]:
    """Print the tables and return their numbers."""
    work = StepWorkload(
        trainable=int(cfg.trainable),
        frozen=int(cfg.frozen),
        images=cfg.batch_per_gpu,
        micro_batches=cfg.micro_batches,
        gflop=float(cfg.gflop_per_image),
        activation_mib=float(cfg.activation_mib_per_image),
        mixed=cfg.mixed_precision,
        passes=float(cfg.passes),
        tensors=cfg.tensors,
    )
    kind = gpu_of(plain(cfg.gpus), cfg.gpu)
    cluster = ClusterSpec(
        **kind,
        network_gb=float(cfg.network_gb),
        gpus_per_node=cfg.gpus_per_node,
        utilization=float(cfg.utilization),
        overlap=float(cfg.overlap),
    )
    num_gpus = [int(count) for count in cfg.num_gpus]
    numbers = plan(work, cluster, num_gpus)
    print_on("Estimates by the formulas of docs/plan.md; nothing was run.")
    Screen().print(memory_table(work, cluster, num_gpus[-1]))
    Screen().print(speed_table(numbers, num_gpus))
    return numbers


def memory_table(work: StepWorkload, cluster: ClusterSpec, ranks: int) -> Table:
    """GiB of each part of memory under each strategy."""
    columns = [memory(work, strategy, ranks) for strategy in STRATEGIES]
    title = f"GiB of a GPU: {ranks} GPUs, {work.images} images a GPU in micro-batches of {work.micro_batch}"
    table = Table("part", *[strategy.replace("_", "\n") for strategy in STRATEGIES], title=title)
    for name in columns[0]:
        label = "rollout, beside" if name == "rollout" else name
        table.add_row(label, *[f"{parts[name] / 2**30:.2f}" for parts in columns])
    fits = [parts["total"] / 2**30 <= cluster.memory_gib for parts in columns]
    table.add_row(f"fits in {cluster.memory_gib:g}", *["yes" if fit else "no" for fit in fits])
    return _numbers_to_the_right(table)


def speed_table(numbers: dict[str, float], num_gpus: list[int]) -> Table:
    """Step time in ms, and the fraction of it that is computation, for each number of GPUs."""
    table = Table("GPUs", *SHARDED, title="ms a step, and the share of it that is arithmetic; images a GPU stay")
    for count in num_gpus:
        cells = [(numbers[f"{name}/{count}/seconds"], numbers[f"{name}/{count}/efficiency"]) for name in SHARDED]
        table.add_row(str(count), *[f"{1e3 * step:.0f}  {100 * share:.0f} %" for step, share in cells])
    return _numbers_to_the_right(table)


def _numbers_to_the_right(table: Table) -> Table:
    for column in table.columns[1:]:
        column.justify = "right"
    return table
