"""Named sums and counts of all ranks as means, whichever rank knows which name."""

import math

import pytest
import torch
import torch.distributed as dist

from capkit.distributed.collectives import means_over_ranks
from capkit.testing.distributed import run_distributed

SUMS = [{"b": (torch.tensor(1.0), torch.tensor(1)), "a": (6.0, 3)}, {"a": (2.0, 1), "none": (0.0, 0)}, {}]


def means_of_this_rank():
    return means_over_ranks(SUMS[dist.get_rank()])


def test_one_process_divides_and_sorts_by_name():
    found = means_over_ranks(SUMS[0])
    assert list(found.items()) == [("a", 2.0), ("b", 1.0)]


@pytest.mark.integration
def test_sums_and_counts_of_all_ranks_are_added_before_they_are_divided():
    # a: (6 + 2) / (3 + 1) = 2; b is known to one rank, none has a count of 0, and the third rank knows no name.
    for found in run_distributed(means_of_this_rank, 3):
        assert list(found) == ["a", "b", "none"]
        assert (found["a"], found["b"]) == (2.0, 1.0)
        assert math.isnan(found["none"])


def test_large_counts_keep_their_precision():
    assert means_over_ranks({"tokens": (2**24 + 1, 1)})["tokens"] == 2**24 + 1


def test_nothing_to_average_is_no_error():
    assert means_over_ranks({}) == {}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_sum_that_is_not_finite_stays_visible(bad):
    assert not math.isfinite(means_over_ranks({"x": (bad, 2)})["x"])
