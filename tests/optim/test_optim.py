import pytest
import torch
from torch import nn

from capkit.errors import UsageError
from capkit.optim.optimizers import AdamW, parameter_groups


def small_model() -> nn.Module:
    return nn.ModuleDict({"tower": nn.Linear(3, 2), "head": nn.Linear(2, 1)})


def test_matrices_decay_and_vectors_do_not():
    model = small_model()
    groups = parameter_groups(model, lr=0.1, weight_decay=0.5, lr_multipliers={})
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        "tower.weight": 0.5, "tower.bias": 0.0, "head.weight": 0.5, "head.bias": 0.0,
    }  # fmt: skip


def test_multipliers_scale_the_learning_rate_of_what_they_match():
    model = small_model()
    groups = parameter_groups(model, lr=0.1, weight_decay=0.0, lr_multipliers={"tower.*": 0.1})
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rates[id(model["tower"].weight)] == pytest.approx(0.01)
    assert rates[id(model["head"].bias)] == pytest.approx(0.1)


def test_a_pattern_that_matches_nothing_is_refused_with_the_parts_there_are():
    with pytest.raises(UsageError, match=r"decoder\.\*.*head\.\*, tower\.\*"):
        parameter_groups(small_model(), 0.1, 0.0, {"decoder.*": 0.1})


def test_a_model_with_nothing_to_train_is_refused():
    with pytest.raises(UsageError, match="nothing to train"):
        AdamW(lr=0.1)(small_model().requires_grad_(False))


def test_one_step_is_adams_first_step():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = AdamW(lr=0.1, weight_decay=0.0)(model)
    model.weight.grad = torch.tensor([[3.0]])
    optimizer.step()
    assert model.weight.item() == pytest.approx(-0.1, abs=1e-6)  # the first step is lr times the gradient's sign
