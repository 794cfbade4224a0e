"""benchmarks/chat_grpo.py runs: capkit's side, and TRL's where it is installed."""

import pytest
import torch

from benchmarks import chat_grpo


@pytest.mark.nightly
def test_steps_of_both_sides_are_timed_and_counted():
    sides = chat_grpo.main(["--tiny"])
    assert list(sides) == (["capkit", "TRL"] if chat_grpo.HAS_TRL else ["capkit"])
    assert all(len(side.ms) == 2 and side.tflop > 0 for side in sides.values())


def test_products_with_another_type_of_output_are_counted():
    with chat_grpo.counter_of_operations() as counter:
        first, second, total = torch.ones(4, 3), torch.ones(3, 5), torch.ones(4, 5)
        torch.addmm(total, first, second)
        torch.bmm(first[None], second[None])
        torch.baddbmm(total[None], first[None], second[None])
    assert counter.get_total_flops() == 3 * 2 * 4 * 3 * 5
    assert chat_grpo.sum_operations((4, 5), (4, 3), (3, 5), torch.float32, out_shape=(4, 5)) == 2 * 4 * 3 * 5
