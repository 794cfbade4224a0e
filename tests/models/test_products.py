"""Linear maps of one input whose gradients share products, against the layers one after the other."""

import pytest
import torch
from torch import nn

from capkit.models.products import can_share_input, linear_maps


def problem():
    torch.manual_seed(0)
    return torch.randn(2, 5, 6, requires_grad=True), nn.ModuleList(nn.Linear(6, size) for size in (4, 3, 8))


def gradients(outputs, x, layers):
    loss = sum((output.float() * (number + 1)).square().sum() for number, output in enumerate(outputs))
    return torch.autograd.grad(loss, [x, *layers.parameters()])


def test_outputs_and_gradients_are_those_of_the_layers():
    x, layers = problem()
    ours, naive = linear_maps(x, list(layers)), [layer(x) for layer in layers]
    for one, other in zip(ours, naive, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(gradients(ours, x, layers), gradients(naive, x, layers), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_under_autocast_outputs_are_equal_and_gradients_near_float32():
    x, layers = problem()
    truth = gradients([layer(x) for layer in layers], x, layers)  # in float32
    with torch.autocast("cpu", torch.bfloat16):
        ours, naive = linear_maps(x, list(layers)), [layer(x) for layer in layers]
    for one, other in zip(ours, naive, strict=True):
        assert one.dtype == torch.bfloat16 and torch.equal(one, other)
    for one, true in zip(gradients(ours, x, layers), truth, strict=True):
        assert one.dtype == torch.float32 and float((one - true).norm() / true.norm()) < 2e-2


def test_an_output_without_gradient_and_frozen_weights():
    x, layers = problem()
    layers.requires_grad_(False)
    first, *_ = linear_maps(x, list(layers))
    (found,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(found, layers[0].weight.sum(0).expand_as(found))


@pytest.mark.parametrize("what", ["hook", "backward hook", "no bias", "sharded", "no gradient"])
def test_other_layers_are_called_themselves(what):
    _, layers = problem()
    assert can_share_input(list(layers))
    if what == "hook":
        layers[1].register_forward_hook(lambda *args: None)
    elif what == "backward hook":
        layers[1].register_full_backward_hook(lambda *args: None)
    elif what == "no bias":
        layers[1] = nn.Linear(6, 3, bias=False)
    elif what == "sharded":
        layers[1].weight.ds_id = 0
    with torch.set_grad_enabled(what != "no gradient"):
        assert not can_share_input(list(layers))
