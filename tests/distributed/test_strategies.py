"""The one choice of how an optimizer step is made under a trainer's strategy."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from torch import nn

from capkit.distributed.strategies import DataParallel, SingleDevice, step_strategy
from capkit.distributed.zero import Zero
from capkit.errors import UsageError


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = nn.Linear(2, 1)


def chosen(strategy):
    module = Module()
    return step_strategy(strategy, module, module.model, clip_norm=1.0)


def test_each_strategy_has_one_way_to_step():
    assert type(chosen(SingleDeviceStrategy())) is SingleDevice
    assert type(chosen(DDPStrategy())) is DataParallel
    zero = Zero()
    assert chosen(zero) is zero


def test_lightnings_own_deepspeed_is_refused():
    strategy = DeepSpeedStrategy.__new__(DeepSpeedStrategy)  # whose constructor wants a GPU
    with pytest.raises(UsageError, match=r"DeepSpeedStrategy is not supported; choose trainer=cpu, gpu, ddp, deepsp"):
        chosen(strategy)


def step(refused: bool):
    """One step of plain SGD on a gradient of norm 5, clipped to 1."""
    module = Module()
    module.manual_backward = torch.Tensor.backward
    steps = step_strategy(SingleDeviceStrategy(), module, module.model, clip_norm=1.0)
    optimizer = torch.optim.SGD(module.model.parameters(), lr=1.0)
    before = module.model.weight.detach().clone()
    told = steps.add_gradient(lambda: ((module.model.weight * torch.tensor([3.0, 4.0])).sum(), "rest"), last=True)
    assert told == "rest" and module.model.bias.grad.tolist() == [0.0]  # no share used it
    seen = []
    outcome = steps.step(optimizer, optimizer.step, lambda norm: seen.append(float(norm)) or torch.tensor(refused))
    assert seen == [5.0] and float(outcome.grad_norm) == 5.0 and bool(outcome.skipped) is refused
    assert module.model.weight.grad is None
    return (before - module.model.weight.detach()).flatten().tolist()


def test_a_step_clips_updates_and_leaves_no_gradient():
    assert step(refused=False) == pytest.approx([0.6, 0.8], abs=1e-5)


def test_a_refused_step_changes_nothing():
    assert step(refused=True) == [0.0, 0.0]
