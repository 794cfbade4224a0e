import pytest
import torch
import torch.distributed as dist

from capkit.distributed.collectives import (
    UnevenGather,
    all_reduce_logsumexp,
    all_reduce_max,
    all_reduce_sum,
    all_reduce_sum_with_grad,
    broadcast_object,
    gather_objects,
    host_group,
)
from capkit.testing.distributed import run_distributed

COUNTS = {2: [3, 1], 3: [2, 0, 4]}


def rows_of(rank: int, counts: list[int]) -> torch.Tensor:
    """Row i of rank r holds 10 r + i."""
    return (10.0 * rank + torch.arange(counts[rank]))[:, None].repeat(1, 2)


def gathering(counts):
    rank = dist.get_rank()
    rows = rows_of(rank, counts).requires_grad_()
    layout = UnevenGather(len(rows))
    gathered = layout.gather_with_grad(rows)
    # Rank r's loss weighs global row j by (r + 1) * (j + 1).
    weights = (rank + 1) * torch.arange(1.0, layout.total + 1)
    (gathered.sum(1) * weights).sum().backward()
    ids = layout.gather(torch.arange(counts[rank]) + 100 * rank)
    return gathered.detach(), rows.grad, ids, (layout.own.start, layout.own.stop), layout.gather(rows.detach())


@pytest.mark.integration
@pytest.mark.parametrize("world_size", [2, 3])
def test_uneven_rows_are_gathered_in_rank_order_and_get_the_summed_gradient_of_all_ranks(world_size):
    counts = COUNTS[world_size]
    whole = torch.cat([rows_of(rank, counts) for rank in range(world_size)])
    ids = torch.cat([100 * rank + torch.arange(count) for rank, count in enumerate(counts)])
    factor = sum(range(1, world_size + 1))  # of all ranks' weights: 1 + 2 = 3, or 1 + 2 + 3 = 6
    for rank, (gathered, gradient, gathered_ids, (start, stop), again) in enumerate(
        run_distributed(gathering, world_size, counts)
    ):
        assert torch.equal(gathered, whole) and torch.equal(again, whole) and torch.equal(gathered_ids, ids)
        assert (start, stop) == (sum(counts[:rank]), sum(counts[: rank + 1]))
        assert torch.equal(gradient, factor * torch.arange(start + 1.0, stop + 1)[:, None].repeat(1, 2))


def nothing_to_gather():
    rows = torch.zeros(0, 2, requires_grad=True)
    gathered = UnevenGather(0).gather_with_grad(rows)
    gathered.sum().backward()
    return gathered.shape, rows.grad.shape


@pytest.mark.integration
def test_no_rank_needs_to_hold_a_row():
    assert run_distributed(nothing_to_gather, 2) == [((0, 2), (0, 2))] * 2


def reductions():
    rank = dist.get_rank()
    value = torch.tensor([1.0 + rank, -2.0 * rank, -1e30 if rank else 0.5], requires_grad=True)
    total = all_reduce_logsumexp(value)
    (total * (rank + 1)).sum().backward()
    through_sum = torch.tensor([1.0], requires_grad=True)
    (all_reduce_sum_with_grad(through_sum) * (rank + 1)).backward()
    return total.detach(), value.grad, through_sum.grad, all_reduce_max(value), all_reduce_sum(value)


@pytest.mark.integration
def test_a_log_sum_exp_over_ranks_has_the_values_and_gradients_of_one_over_rows():
    values = torch.tensor([[1.0, 0.0, 0.5], [2.0, -2.0, -1e30]], requires_grad=True)
    expected = values.logsumexp(0)
    (expected * 3).sum().backward()  # the ranks' factors, 1 and 2, added up
    for rank, (total, gradient, through_sum, highest, summed) in enumerate(run_distributed(reductions, 2)):
        torch.testing.assert_close(total, expected.detach())
        torch.testing.assert_close(gradient, values.grad[rank])
        assert through_sum.tolist() == [3.0]
        assert torch.equal(highest, values.detach().amax(0)) and torch.equal(summed, values.detach().sum(0))


def test_without_a_process_group_everything_is_the_identity():
    rows = torch.randn(3, 2, requires_grad=True)
    layout = UnevenGather(3)
    assert layout.total == 3 and layout.own == slice(0, 3)
    assert layout.gather_with_grad(rows) is rows and layout.reduce_scatter(rows) is rows
    assert torch.equal(layout.gather(rows), rows) and not layout.gather(rows).requires_grad
    assert all_reduce_logsumexp(rows) is rows and all_reduce_sum_with_grad(rows) is rows
    assert not all_reduce_max(rows).requires_grad and not all_reduce_sum(rows).requires_grad


def group_for_the_host():
    return (
        host_group() is dist.group.WORLD,
        gather_objects(dist.get_rank()),
        broadcast_object(dist.get_rank(), source=1),
    )


@pytest.mark.integration
def test_on_a_cpu_the_group_of_the_run_exchanges_objects():
    assert run_distributed(group_for_the_host, 2) == [(True, [0, 1], 1)] * 2


def numbers_of_the_host_beside_nccl():
    """Of a run that says that it exchanges by NCCL, which no tensor of the host can go through."""
    made = []
    new_group = dist.new_group

    def making(*args, **kwargs):
        made.append(kwargs)
        return new_group(*args, **kwargs)

    used = []
    all_reduce = dist.all_reduce

    def reducing(tensor, operation, group=None):
        used.append(group is not dist.group.WORLD)
        return all_reduce(tensor, operation, group=group)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "get_backend", lambda *_: "nccl")
        patch.setattr(dist, "new_group", making)
        patch.setattr(dist, "all_reduce", reducing)
        total = all_reduce_sum(torch.tensor(1.0 + dist.get_rank()))
        layout = UnevenGather(1 + dist.get_rank())
        rows = layout.gather(torch.full((1 + dist.get_rank(),), float(dist.get_rank())))
    return float(total), layout.counts, rows.tolist(), made, used


@pytest.mark.integration
def test_what_lies_on_the_host_goes_through_one_group_of_its_own_under_nccl():
    expected = (3.0, [1, 2], [0.0, 1.0, 1.0], [{"backend": "gloo"}], [True, True])
    assert run_distributed(numbers_of_the_host_beside_nccl, 2) == [expected] * 2
