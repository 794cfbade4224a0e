"""The plan on paper: worked by hand for a model of 600 trainable and 400 frozen numbers."""

import pytest

from capkit.distributed.cost_model import (
    LIVE_NUMBERS,
    REUSE_NUMBERS,
    SHARDED,
    ClusterSpec,
    StepWorkload,
    memory,
    model_state_bytes,
    plan,
    seconds,
    traffic,
)
from capkit.errors import UsageError


def work(**changes) -> StepWorkload:
    settings = {"trainable": 600, "frozen": 400, "images": 8, "micro_batches": 2, "gflop": 50.0, "activation_mib": 3.0}
    return StepWorkload(**{**settings, "mixed": True, **changes})


def cluster(**changes) -> ClusterSpec:
    settings = {"memory_gib": 79.0, "tflops": 1000.0, "link_gb": 400.0, "network_gb": 50.0, "gpus_per_node": 8}
    return ClusterSpec(**{**settings, "utilization": 0.5, **changes})


@pytest.mark.parametrize(
    ("strategy", "weights", "master", "moments", "gradients"),
    [
        ("ddp", 4000, 0, 4800, 2400),
        ("zero1", 4000, 600, 1200, 2400),
        ("zero2", 4000, 600, 1200, 600),
        ("zero3", 1000, 600, 1200, 600),
    ],
)
def test_states_on_four_ranks_by_hand(strategy, weights, master, moments, gradients):
    wanted = {"weights": weights, "master": master, "moments": moments, "gradients": gradients}
    assert model_state_bytes(work(), strategy, 4) == wanted


def test_memory_is_the_sum_of_its_parts_and_a_rollout_under_stage_3_gathers_every_weight():
    parts = memory(work(), "zero3", 4)
    # states 3400, gathered 4000, bucket 2400, 16-bit copies 2000, four images of 3 MiB
    assert parts["total"] == 3400 + 4000 + 2400 + 2000 + 4 * 3 * 2**20
    assert parts["rollout"] == 4000
    assert memory(work(), "zero2", 4)["rollout"] == 0


def test_offload_leaves_weights_on_the_gpu_under_stage_2_and_none_under_stage_3():
    two, three = (memory(work(), name, 4) for name in ("zero2_offload", "zero3_offload"))
    assert [two[name] for name in ("weights", "master", "moments", "gradients")] == [4000, 0, 0, 0]
    assert [three[name] for name in ("weights", "master", "moments", "gradients")] == [0, 0, 0, 0]


def test_of_a_large_model_stage_3_gathers_what_deepspeed_keeps_at_most():
    parts = memory(work(trainable=7 * 10**9), "zero3", 8)
    assert parts["gathered"] == 4 * LIVE_NUMBERS
    assert parts["rollout"] == 4 * (7 * 10**9 + 400)


def test_traffic_by_hand():
    # An all-reduce of 2400 bytes sends 3/4 of them twice, a gathering or a reduction to parts once. Stages 2 and 3
    # reduce in each of 2 micro-batches; stage 3 gathers 4000 in each.
    found = {name: traffic(work(), name, 4) for name in SHARDED}
    assert found == {"ddp": 3600, "zero1": 5400, "zero2": 9000, "zero3": 0.75 * 2 * (4000 + 2400)}
    assert traffic(work(), "zero3", 1) == 0


def test_micro_batches_of_a_dual_encoder_exchange_gradients_once():
    for name in SHARDED:
        assert traffic(work(passes=4.0), name, 4) == traffic(work(micro_batches=1), name, 4)


def test_of_a_large_model_stage_3_gathers_again_what_deepspeed_did_not_keep():
    size = 2 * 10**9
    found = traffic(work(trainable=size, frozen=0, micro_batches=1), "zero3", 4)
    assert found == 0.75 * 4 * (size + (size - REUSE_NUMBERS / 2) + size)


def test_a_step_is_its_arithmetic_and_the_traffic_that_it_does_not_hide():
    big = work(trainable=10**9, frozen=0, micro_batches=1)
    arithmetic, step = seconds(big, cluster(), "ddp", 8)
    assert arithmetic == pytest.approx(8 * 50e9 * 3 / 500e12)  # 2.4 ms
    assert step == pytest.approx(arithmetic + 7 / 8 * 8e9 / 400e9)  # 17.5 ms of NVLink
    assert seconds(big, cluster(overlap=1.0), "ddp", 8) == (arithmetic, arithmetic)


def test_deepspeed_works_at_each_tensor_in_each_backward_pass_beside_all_else():
    """442 tensors, two micro-batches: 70.7, 61.9 and 530.4 ms at stages 1, 2 and 3, none under DDP; never hidden."""
    wanted = {"ddp": 0.0, "zero1": 0.07072, "zero2": 0.06188, "zero3": 0.5304}
    for strategy, engine in wanted.items():
        for overlap in (0.0, 1.0):
            (_, without), (_, found) = (
                seconds(work(tensors=tensors), cluster(overlap=overlap), strategy, 2) for tensors in (0, 442)
            )
            assert found - without == pytest.approx(engine, abs=1e-9)
    recomputed = work(tensors=442, passes=4.0), work(passes=4.0)  # a dual encoder exchanges once
    found, without = (seconds(one, cluster(), "zero3", 2)[1] for one in recomputed)
    assert found - without == pytest.approx(0.2652)


def test_over_several_nodes_the_network_is_the_slowest_link():
    big = work(trainable=10**9, frozen=0)
    within, across = (seconds(big, cluster(), "ddp", ranks) for ranks in (8, 16))
    assert across[1] - across[0] == pytest.approx((15 / 16) / (7 / 8) * 8 * (within[1] - within[0]))


def test_efficiency_falls_with_the_number_of_gpus_and_is_one_on_one():
    numbers = plan(work(trainable=10**8), cluster(), [1, 8, 64])
    found = [numbers[f"zero2/{count}/efficiency"] for count in (1, 8, 64)]
    assert found[0] == 1.0 > found[1] > found[2]
    assert numbers["zero2/8/images_per_second"] == pytest.approx(64 / numbers["zero2/8/seconds"])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: work(trainable=0), "trainable must be 1 or more"),
        (lambda: work(micro_batches=9), "8 images and 9 micro-batches"),
        (lambda: cluster(utilization=1.5), "expected utilization above 0"),
        (lambda: model_state_bytes(work(), "zero4", 2), "expected strategy to be one of"),
    ],
)
def test_numbers_that_make_no_sense_are_told(make, told):
    with pytest.raises(UsageError, match=told):
        make()
