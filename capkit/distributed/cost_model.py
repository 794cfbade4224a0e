"""Estimates of GPU memory and step time: the formulas of docs/plan.md.

Sizes are in bytes, times in seconds, counts are not scaled; nothing here is measured. T trainable parameters, F frozen
parameters, R ranks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from capkit.errors import UsageError, check_choice

SHARDED = ("ddp", "zero1", "zero2", "zero3")  # strategies with a step time; that of offload depends on the CPU
STRATEGIES = (*SHARDED, "zero2_offload", "zero3_offload")
FLOAT = 4  # bytes per weight, gradient or moment: capkit trains float32 weights, mixed precision computes in 16 bits
BUCKET_NUMBERS = 50_000_000  # as in capkit/distributed/zero.py
LIVE_NUMBERS = 1_000_000_000  # gathered weights that DeepSpeed keeps in stage 3: stage3_max_live_parameters
REUSE_NUMBERS = 1_000_000_000  # it also keeps weights used again within this many: stage3_max_reuse_distance
# What the host takes for a trainable tensor in a backward pass under DeepSpeed 0.19, by stage: measured on two H200 and
# two H100 (docs/plan.md). The GPU waits for it.
ENGINE_SECONDS = (0.0, 8e-5, 7e-5, 6e-4)


@dataclass(frozen=True)
class StepWorkload:
    """A model and one rank's share of a step.

    `gflop`: forward pass of one image with its captions. `activation_mib`: activations that one image keeps for the
    backward pass. `passes`: cost of a step in forward passes: 3 with the backward pass, 4 if a dual encoder recomputes
    its micro-batches. `tensors`: trainable ones, for DeepSpeed's work at each; 0 leaves it out.
    """

    trainable: int
    frozen: int
    images: int
    micro_batches: int
    gflop: float
    activation_mib: float
    mixed: bool
    passes: float = 3.0
    tensors: int = 0

    def __post_init__(self) -> None:
        if self.trainable < 1 or self.frozen < 0:
            raise UsageError(f"trainable must be 1 or more, frozen 0 or more; got {self.trainable} and {self.frozen}")
        if not 1 <= self.micro_batches <= self.images:
            raise UsageError(
                f"a rank's images must be 1 or more, and micro_batches 1 to as many; got {self.images} images and "
                f"{self.micro_batches} micro-batches"
            )

    @property
    def micro_batch(self) -> int:
        """Images in the largest micro-batch."""
        return -(-self.images // self.micro_batches)

    @property
    def backward_passes(self) -> int:
        """Backward passes that reduce gradients: one per micro-batch; one in all for a dual encoder."""
        return 1 if self.passes >= 4 else self.micro_batches


@dataclass(frozen=True)
class ClusterSpec:
    """GPUs of one kind. `tflops`: peak of dense 16-bit matrix products; `utilization`: the fraction a model reaches.

    `link_gb`: GB/s from one GPU to others of its node. `network_gb`: GB/s from one node to others over all its ports,
    shared by the rings over all GPUs. `overlap`: fraction of communication hidden behind computation.
    """

    memory_gib: float
    tflops: float
    link_gb: float
    network_gb: float
    gpus_per_node: int
    utilization: float
    overlap: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.utilization <= 1 or not 0 <= self.overlap <= 1:
            raise UsageError(
                f"expected utilization above 0 and at most 1, overlap from 0 to 1; got {self.utilization} and "
                f"{self.overlap}"
            )

    def gb_per_second(self, ranks: int) -> float:
        """Bandwidth of the slowest link in a ring over all ranks."""
        return self.link_gb if ranks <= self.gpus_per_node else min(self.link_gb, self.network_gb)


def model_state_bytes(work: StepWorkload, strategy: str, ranks: int) -> dict[str, float]:
    """Bytes that one rank holds between steps, by kind. Under offload `moments` and `master` are in host memory.

    weights: the weights the model computes with. master: the float32 copy that ZeRO updates. moments: Adam's two.
    gradients: those kept until the update (stages 1 and 2 free them during it). DeepSpeed pads each parameter or group
    to a multiple of the ranks, which adds a few numbers.
    """
    _check(strategy)
    trainable, everything = float(FLOAT * work.trainable), float(FLOAT * (work.trainable + work.frozen))
    if strategy == "ddp":
        return {"weights": everything, "master": 0.0, "moments": 2 * trainable, "gradients": trainable}
    whole_gradients = strategy == "zero1"
    return {
        "weights": everything / ranks if _stage(strategy) == 3 else everything,
        "master": trainable / ranks,
        "moments": 2 * trainable / ranks,
        "gradients": trainable if whole_gradients else trainable / ranks,
    }


def memory(work: StepWorkload, strategy: str, ranks: int) -> dict[str, float]:
    """Bytes of GPU memory during a step, by kind; `rollout` (a whole gathered copy under stage 3); and `total`.

    An upper estimate: the parts are added up, though not all of them exist at the same time.
    """
    parts = model_state_bytes(work, strategy, ranks)
    if strategy.endswith("offload"):
        parts |= {"master": 0.0, "moments": 0.0, "gradients": 0.0}
        if _stage(strategy) == 3:
            parts["weights"] = 0.0
    everything = work.trainable + work.frozen
    gathers = _stage(strategy) == 3
    parts["gathered"] = float(FLOAT * min(everything, LIVE_NUMBERS)) if gathers else 0.0
    parts["bucket"] = _bucket(work, strategy, ranks)
    parts["16-bit copies"] = 2.0 * everything if work.mixed else 0.0
    parts["activations"] = work.micro_batch * work.activation_mib * 2**20
    return {**parts, "total": sum(parts.values()), "rollout": float(FLOAT * everything) if gathers else 0.0}


def _bucket(work: StepWorkload, strategy: str, ranks: int) -> float:
    """Buffer in which gradients are reduced. DDP's buckets hold all gradients; a single GPU has none."""
    if strategy == "ddp":
        return float(FLOAT * work.trainable) if ranks > 1 else 0.0
    return float(FLOAT * min(work.trainable, BUCKET_NUMBERS))


def traffic(work: StepWorkload, strategy: str, ranks: int) -> float:
    """Bytes that a rank sends in a step over rings: (R - 1) / R of what is reduced or gathered, twice for all-reduce.

    Models DeepSpeed 0.19 as capkit configures it; verified by counting in two processes. Stages 1 and 2 all-reduce
    gradients and keep their partition, where the paper uses a reduce-scatter.
    """
    _check(strategy)
    trainable = FLOAT * work.trainable
    around = (ranks - 1) / ranks
    stage = _stage(strategy)
    if stage == 0:
        return around * 2 * trainable
    if stage <= 2:  # stage 1 reduces once a step, stage 2 in each backward pass; both then gather updated weights
        return around * trainable * (2 * (1 if stage == 1 else work.backward_passes) + 1)
    return around * work.backward_passes * (FLOAT * _gathered_numbers(work) + trainable)


def _gathered_numbers(work: StepWorkload) -> int:
    """Weights that stage 3 gathers for a forward pass, and again for the backward pass unless they were kept.

    A weight is kept if fewer than `REUSE_NUMBERS` others are used before the backward pass needs it: the last
    `REUSE_NUMBERS / 2` of the model.
    """
    everything = work.trainable + work.frozen
    return everything + max(0, everything - REUSE_NUMBERS // 2)


def seconds(work: StepWorkload, cluster: ClusterSpec, strategy: str, ranks: int) -> tuple[float, float]:
    """Seconds of a step's computation, and of the whole step: with communication that is not hidden, and DeepSpeed's
    own work at each tensor.
    """
    arithmetic = work.images * work.gflop * 1e9 * work.passes / (cluster.tflops * 1e12 * cluster.utilization)
    sending = traffic(work, strategy, ranks) / (cluster.gb_per_second(ranks) * 1e9)
    engine = work.tensors * work.backward_passes * ENGINE_SECONDS[_stage(strategy)]
    return arithmetic, arithmetic + (1 - cluster.overlap) * sending + engine


def plan(work: StepWorkload, cluster: ClusterSpec, num_gpus: list[int]) -> dict[str, float]:
    """`STRATEGY/NUM/gib`; without offload also `seconds`, `images_per_second`, `efficiency` (computation's part)."""
    numbers: dict[str, float] = {}
    for strategy, ranks in product(STRATEGIES, num_gpus):
        key = f"{strategy}/{ranks}"
        numbers[f"{key}/gib"] = memory(work, strategy, ranks)["total"] / 2**30
        if strategy in SHARDED:
            arithmetic, step = seconds(work, cluster, strategy, ranks)
            numbers[f"{key}/seconds"] = step
            numbers[f"{key}/images_per_second"] = ranks * work.images / step
            numbers[f"{key}/efficiency"] = arithmetic / step
    return numbers


def gpu_of(kinds: Mapping[str, Mapping[str, float | int]], name: str) -> dict[str, float]:
    """The numbers of one kind of GPU. Raises UsageError if it is not listed."""
    if name not in kinds:
        raise UsageError(
            f"gpu={name} is not one of {', '.join(kinds)}; change the numbers of one: gpus.h100.memory_gib=94"
        )
    return {key: float(value) for key, value in kinds[name].items()}


def _stage(strategy: str) -> int:
    return 0 if strategy == "ddp" else int(strategy[4])


def _check(strategy: str) -> None:
    check_choice("strategy", strategy, STRATEGIES)
