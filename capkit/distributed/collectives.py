"""Collectives and rank queries that also work in a single process without a process group.

What lies on the host is exchanged there: under NCCL by `host_group`, so that no rank waits for its GPU.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from capkit.errors import UsageError

T = TypeVar("T")
Sums = dict[str, tuple[Any, Any]]  # (sum, count) of numbers by name: plain numbers, or tensors on any device

_host_groups: dict[Any, Any] = {}  # of the run's process group


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    return dist.get_world_size() if is_distributed() else 1


def host_group() -> Any:
    """The process group of all ranks for what lies on the host: that of the run, or under NCCL one by gloo beside it.

    The first call makes it: all ranks come there at the same place, as at any collective.
    """
    world = dist.group.WORLD
    if dist.get_backend() != "nccl":
        return world
    if world not in _host_groups:
        _host_groups.clear()  # of a process group that is gone
        _host_groups[world] = dist.new_group(backend="gloo")
    return _host_groups[world]


def _group_of(value: Tensor) -> Any:
    return dist.group.WORLD if value.is_cuda else host_group()


def all_reduce_sum(value: Tensor) -> Tensor:
    """Sum over ranks, detached, on the value's device; the input is not changed."""
    return _all_reduce(value, dist.ReduceOp.SUM)


def all_reduce_max(value: Tensor) -> Tensor:
    """Element-wise maximum over ranks, detached, on the value's device; the input is not changed."""
    return _all_reduce(value, dist.ReduceOp.MAX)


def _all_reduce(value: Tensor, operation: Any) -> Tensor:
    if not is_distributed():
        return value.detach()
    # A contiguous copy: all_reduce works in place and requires dense memory.
    reduced = value.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(reduced, operation, group=_group_of(reduced))
    return reduced


class _SumOverRanks(torch.autograd.Function):
    """Every rank's loss may depend on the sum, so a summand's gradient is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return all_reduce_sum(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return all_reduce_sum(gradient)


def all_reduce_sum_with_grad(value: Tensor) -> Tensor:
    """Sum over ranks, with gradient: that of the sum of all ranks' losses.

    The backward pass communicates: either every rank's loss must depend on the result, or none.
    """
    return _SumOverRanks.apply(value) if is_distributed() else value


def all_reduce_logsumexp(value: Tensor) -> Tensor:
    """Element-wise log(sum over ranks of exp(value)), with gradient like `all_reduce_sum_with_grad`.

    Each element must be finite on at least one rank.
    """
    if not is_distributed():
        return value
    highest = all_reduce_max(value)  # subtracted before exp, against overflow
    return highest + all_reduce_sum_with_grad((value - highest).exp()).log()


class _TouchAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        ctx.num_parameters = len(parameters)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient, *[None] * ctx.num_parameters


def touch_all_parameters(loss: Tensor, parameters: Iterable[Tensor]) -> Tensor:
    """Identity. Makes every trainable parameter part of the graph, so that DDP reduces each bucket even if the loss
    does not use some parameters.

    DDP reduces a bucket of gradients once the backward pass has reached all of the bucket's parameters. A single unused
    parameter would leave its bucket and all later ones unreduced, and ranks' weights would silently diverge. DDP's own
    `find_unused_parameters` searches the whole graph for such parameters in each step. Gradients of unused parameters
    stay None.
    """
    return _TouchAll.apply(loss, *(parameter for parameter in parameters if parameter.requires_grad))


class UnevenGather:
    """Gathers tensors whose rows are spread unevenly over ranks; a rank may hold no rows.

    The constructor exchanges the numbers of rows, so make one for all tensors that share these rows. Gathered rows are
    in rank order; `own` is the slice that holds this rank's rows. Every rank must make the same calls in the same
    order.
    """

    def __init__(self, num_rows: int) -> None:
        counts = torch.zeros(world_size(), dtype=torch.long)
        counts[rank()] = num_rows
        self.counts: list[int] = all_reduce_sum(counts).tolist()
        before = sum(self.counts[: rank()])
        self.own = slice(before, before + num_rows)

    @property
    def total(self) -> int:
        return sum(self.counts)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, detached."""
        if not is_distributed():
            return rows.detach()
        # Collectives require equal shapes: pad to the longest, gather, cut.
        longest = max(self.counts)
        padded = rows.new_zeros(longest, *rows.shape[1:])
        padded[: len(rows)] = rows.detach()
        gathered = [torch.empty_like(padded) for _ in self.counts]
        dist.all_gather(gathered, padded, group=_group_of(padded))
        return torch.cat([part[:count] for part, count in zip(gathered, self.counts, strict=True)])

    def gather_with_grad(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, with gradient: a row's gradient is summed over all ranks' losses.

        The backward pass communicates: either every rank's loss must depend on the result, or none.
        """
        return _GatherRows.apply(rows, self) if is_distributed() else rows

    def reduce_scatter(self, rows: Tensor) -> Tensor:
        """Sum rows over ranks and return this rank's slice: the transpose of `gather`. `rows` holds all ranks' rows."""
        if not is_distributed():
            return rows
        longest = max(self.counts)
        padded = [rows.new_zeros(longest, *rows.shape[1:]) for _ in self.counts]
        for slot, part in zip(padded, rows.split(self.counts), strict=True):
            slot[: len(part)] = part
        summed = torch.empty_like(padded[0])
        dist.reduce_scatter(summed, padded, group=_group_of(summed))
        return summed[: self.counts[rank()]]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, layout: UnevenGather) -> Tensor:
        ctx.layout = layout
        return layout.gather(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.layout.reduce_scatter(gradient), None


def add_sums(sums: Sums, more: Sums) -> None:
    """Add (sum, count) by name to `sums`, in place; a name that is new there begins."""
    for name, (total, count) in more.items():
        before = sums.get(name, (0, 0))
        sums[name] = (before[0] + total, before[1] + count)


def means_over_ranks(sums: Mapping[str, tuple[Any, Any]]) -> dict[str, float]:
    """Global means from each rank's (sum, count); NaN where the global count is 0.

    Names may differ between ranks: every rank returns the union, in alphabetical order. Numbers are added on the host:
    a rank that knows no name has none on its GPU, and all ranks must exchange in one group.
    """
    names = sorted({name for part in gather_objects(list(sums)) for name in part})
    numbers = [number for name in names for number in sums.get(name, (0.0, 0.0))]
    on_gpu = (number.device for number in numbers if isinstance(number, Tensor) and number.is_cuda)
    stacked = _stacked(numbers, next(on_gpu, torch.device("cpu"))).cpu()  # one wait for the GPU, not one a number
    added = all_reduce_sum(stacked).view(-1, 2).tolist()
    return {name: total / count if count else math.nan for name, (total, count) in zip(names, added, strict=True)}


def device_means_over_ranks(sums: Mapping[str, tuple[Any, Any]], device: torch.device) -> dict[str, Tensor]:
    """The same means as tensors (float64) on `device`, for which the host does not wait.

    All ranks must have the same names.
    """
    names = sorted(sums)
    added = all_reduce_sum(_stacked([number for name in names for number in sums[name]], device)).view(-1, 2)
    totals, counts = added.unbind(1)
    means = torch.where(counts != 0, totals / counts, torch.nan)
    return dict(zip(names, means.unbind(), strict=True))


def _stacked(numbers: Sequence[Any], device: torch.device) -> Tensor:
    """Numbers and scalar tensors as one float64 tensor. Those of the device stay there; others are filled in there."""

    def placed(number: Any) -> Tensor:
        if isinstance(number, Tensor) and number.device.type == device.type:
            return number.detach().double()
        return torch.full((), float(number), dtype=torch.float64, device=device)

    return torch.stack([placed(number) for number in numbers]) if numbers else torch.zeros(0, dtype=torch.float64)


def device_std_over_ranks(values: Tensor) -> Tensor:
    """Population standard deviation of all ranks' values, in float64 on their device, for which the host does not wait.

    NaN values are left out; without any other it is NaN.
    """
    kept = ~values.isnan()
    numbers = values.double().where(kept, 0.0)
    count, total = all_reduce_sum(torch.stack([kept.sum().double(), numbers.sum()])).unbind()
    squares = all_reduce_sum((numbers - total / count).square().where(kept, 0.0).sum())
    return (squares / count).sqrt()


def mean_and_std_over_ranks(values: Tensor) -> tuple[float, float]:
    """Mean and population standard deviation of all ranks' values, in float64. NaN values are left out."""
    kept = values[~values.isnan()].double()

    def added(*numbers: Tensor) -> list[float]:
        return all_reduce_sum(torch.stack(numbers)).tolist()

    count, total = added(kept.new_tensor(len(kept)), kept.sum())
    if not count:
        return math.nan, math.nan
    mean = total / count
    (squares,) = added((kept - mean).square().sum())
    return mean, math.sqrt(squares / count)


def gather_objects(value: Any) -> list[Any]:
    """Each rank's picklable value, in rank order, on every rank."""
    if not is_distributed():
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value, group=host_group())
    return gathered


def broadcast_object(value: Any, source: int = 0) -> Any:
    """The picklable value of rank `source`, on every rank."""
    if not is_distributed():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=source, group=host_group())
    return box[0]


def on_rank_zero(decide: Callable[[], T]) -> T:
    """Run `decide` on rank 0 and return its picklable result on every rank. A UsageError is raised on all ranks."""
    outcome: tuple[Any, str | None] = (None, None)
    if rank() == 0:
        try:
            outcome = decide(), None
        except UsageError as error:
            outcome = None, str(error)
    value, wrong = broadcast_object(outcome)
    if wrong is not None:
        raise UsageError(wrong)
    return value
