"""`capkit plan`, and the dry run that prints its command."""

import gc
import weakref

import pytest
import torch
from torch import nn

from capkit.cli import main
from capkit.train.dry_run import measure

PLAN = ["plan", "trainable=239e6", "gflop_per_image=49.7", "activation_mib_per_image=125"]


def test_the_plan_prints_memory_of_every_strategy_and_speed_of_every_number_of_gpus(capsys):
    assert main([*PLAN, "num_gpus=[1,16]"]) == 0
    printed = capsys.readouterr().out
    assert "nothing was run" in printed
    assert all(name in printed for name in ("ddp", "zero1", "zero2", "zero3", "moments", "activations"))


def test_a_gpus_numbers_can_be_changed_and_an_unknown_kind_is_told(capsys):
    assert main([*PLAN, "gpus.h100.memory_gib=1"]) == 0
    assert "fits in 1 " in capsys.readouterr().out
    assert main([*PLAN, "gpu=h1000"]) == 2
    assert "gpu=h1000 is not one of h200, h100, a100, l40s" in capsys.readouterr().err


def test_what_is_measured_is_the_arithmetic_and_what_the_backward_pass_needs():
    layer, inputs = nn.Linear(5, 7), torch.randn(2, 5)
    gflop, mib = measure(lambda count: layer(inputs[:count].clone()), layer.parameters(), mixed=False)
    assert gflop == pytest.approx(2 * 5 * 7 / 1e9)  # two operations a multiply-add, of one image
    assert mib == pytest.approx(5 * 4 / 2**20)  # its input


def test_under_mixed_precision_activations_take_16_bits_and_copies_of_weights_are_none():
    layer, inputs = nn.Linear(5, 700), torch.randn(2, 5)
    _, mib = measure(lambda count: layer(inputs[:count]), layer.parameters(), mixed=True)
    assert mib == pytest.approx(5 * 2 / 2**20)


def test_attention_counts_where_the_processor_fuses_it():
    query = torch.randn(2, 4, 6, 8, requires_grad=True)
    attention = nn.functional.scaled_dot_product_attention
    gflop, _ = measure(lambda count: attention(*[query[:count]] * 3), [], mixed=False)
    assert gflop == pytest.approx(4 * 2 * (2 * 6 * 6 * 8) / 1e9)  # scores and values, four heads


def test_work_that_is_not_known_is_not_measured():
    assert measure(lambda count: None, [], mixed=False) is None


def measured_weight():
    layer = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    measure(lambda count: layer(torch.ones(count, 4)), layer.parameters(), mixed=False)
    return weakref.ref(layer[0].weight)


def test_a_measured_model_is_not_kept():
    """Tanh keeps its own output for the backward pass, which a dry run never makes."""
    weight = measured_weight()
    gc.collect()
    assert weight() is None
