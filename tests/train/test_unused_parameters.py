"""Trainable parameters that a step's loss does not use, on one process and on two under DDP."""

import pytest
import rl_steps
import torch
from rl_steps import OBJECTIVES, Keep, Recording, differences, loader, trainer_of
from torch import nn

from capkit.decoding.config import Decoding
from capkit.distributed.collectives import rank
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Linear
from capkit.testing.distributed import run_distributed
from capkit.train.mle_module import MLEModule

STEPS = 3


class OfOneImage(CrossEntropy):
    """Image 1 is the second rank's, and alone in using the parameter `rare`: in a micro-batch that is not the last."""

    def __call__(self, model, batch, step):
        output = super().__call__(model, batch, step)
        if "1" in batch.keys:
            output.loss_sum = output.loss_sum + model.rare.square().sum()
        return output


class Likelihood(MLEModule):
    rollouts = ()


def with_unused(module):
    torch.manual_seed(3)
    module.model.never, module.model.rare = nn.Linear(2, 3), nn.Parameter(torch.ones(4))
    return module


def modules(micro_batch_size):
    optimizer = AdamW(lr=0.01, weight_decay=0.1, clip_norm=0.5, eps=1e-4)
    yield Likelihood(
        rl_steps.captioner(), OfOneImage(), optimizer, Linear(), Decoding(), micro_batch_size=micro_batch_size
    )
    module = rl_steps.module_of(OBJECTIVES["ppo_k2"](), micro_batch_size=micro_batch_size)
    assert isinstance(module, Recording)
    yield module


def train(strategy, micro_batch_size):
    outcomes = []
    for module in modules(micro_batch_size):
        keep = Keep()
        trainer_of(strategy, STEPS, [keep]).fit(with_unused(module), loader(STEPS))
        outcomes.append(keep.outcome)
    return rank(), outcomes


@pytest.fixture(scope="module")
def one():
    return train("auto", None)[1]


@pytest.fixture(scope="module")
def two():
    return [outcomes for _, outcomes in run_distributed(train, 2, "ddp", 1)]


@pytest.mark.integration
@pytest.mark.parametrize("number", [0, 1], ids=["likelihood", "ppo"])
def test_ranks_under_ddp_train_what_one_process_does_where_a_loss_does_not_use_all_parameters(one, two, number):
    for outcomes in two:
        assert differences(one[number], outcomes[number]) == []
    assert all(torch.equal(two[0][number].weights[name], weight) for name, weight in two[1][number].weights.items())


def test_a_parameter_that_no_loss_uses_decays_and_one_that_one_rank_uses_learns(one):
    first, weights = with_unused(next(modules(None))).state_dict(), one[0].weights
    decayed = weights["model.never.weight"] / first["model.never.weight"]
    rates = [0.01 * share for share in (1, 2 / 3, 1 / 3)]
    assert torch.allclose(decayed, torch.tensor([1 - 0.1 * rate for rate in rates]).prod(), atol=1e-6)
    assert (weights["model.rare"] < 0.99).all()
