"""benchmarks/chat_grpo.py runs: capkit's side, and TRL's where it is installed."""

import pytest

from benchmarks import chat_grpo


@pytest.mark.nightly
def test_steps_of_both_sides_are_timed_and_counted():
    sides = chat_grpo.main(["--tiny"])
    assert list(sides) == (["capkit", "TRL"] if chat_grpo.HAS_TRL else ["capkit"])
    assert all(len(side.ms) == 2 and side.tflop > 0 for side in sides.values())
