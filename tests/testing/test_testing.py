import pytest
import torch
import torch.distributed as dist

from capkit.distributed.collectives import all_reduce_sum, gather_objects, rank, world_size
from capkit.testing.distributed import run_distributed


def _sum_of_ranks(offset: int) -> tuple[int, int, float, list[int]]:
    total = all_reduce_sum(torch.tensor(float(dist.get_rank() + offset)))
    return rank(), world_size(), float(total), gather_objects(rank())


def _fail_on_rank_1() -> None:
    if dist.get_rank() == 1:
        raise ValueError("broken on purpose")


@pytest.mark.integration
def test_each_rank_returns_its_result_and_collectives_work():
    assert run_distributed(_sum_of_ranks, 2, 10) == [(0, 2, 21.0, [0, 1]), (1, 2, 21.0, [0, 1])]


@pytest.mark.integration
def test_a_failing_rank_raises_with_its_own_traceback():
    with pytest.raises(RuntimeError, match=r"rank 1 of 2 failed(.|\n)*broken on purpose"):
        run_distributed(_fail_on_rank_1, 2)


def test_without_a_process_group_the_utilities_work_alone():
    assert (rank(), world_size(), gather_objects("x")) == (0, 1, ["x"])
