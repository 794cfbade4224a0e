"""Processes that take turns, and what is made of the kernels that they ran."""

import pytest

from benchmarks.groups import Group, GroupFailed, all_reduce_gb
from benchmarks.speed.kernels import covered, sort
from capkit.distributed.collectives import rank, world_size


def who() -> tuple[int, int]:
    return rank(), world_size()


def fail_on(one: int) -> None:
    if rank() == one:
        raise ValueError("not today")
    all_reduce_gb(10, "cpu", tries=1)  # waits for the other


@pytest.mark.integration
def test_all_ranks_do_what_they_are_told_and_a_failure_is_told_at_once():
    """Rank 0 would wait for two minutes: the failed rank is asked for first, whichever it is."""
    one, two = Group(1, gpu=False), Group(2, gpu=False, timeout_s=60)
    assert (one.ask(who), two.ask(who)) == ([(0, 1)], [(0, 2), (1, 2)])
    assert all(gb > 0 for gb in two.ask(all_reduce_gb, 1000, "cpu", 3))
    with pytest.raises(GroupFailed, match=r"rank 1 of 2(.|\n)*not today"):
        two.ask(fail_on, 1)
    assert one.ask(who) == [(0, 1)]
    one.end()


def test_time_in_which_kernels_run_counts_once():
    assert covered([]) == 0
    assert covered([(0, 4), (1, 2), (3, 6), (8, 9)]) == 7


def test_nccl_that_runs_beside_others_is_hidden():
    """NCCL from 2 to 6 and from 8 to 10, others from 0 to 4 and 5 to 9: hidden 2..4, 5..6 and 8..9, 4 of 6 ms."""
    spans = [("gemm", (0, 4)), ("ncclDevKernel_AllReduce", (2, 6)), ("adam", (5, 9)), ("ncclDevKernel", (8, 10))]
    found = sort(12.0, spans)
    assert (found.launches, found.nccl) == (4, 2)
    assert (found.busy_ms, found.nccl_ms, found.hidden_ms) == (8, 6, 4)
    assert found.hidden == pytest.approx(4 / 6)
