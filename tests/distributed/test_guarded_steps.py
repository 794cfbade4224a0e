"""A step with a bad loss or gradient is left out under every strategy: no weight, moment or learning rate moves."""

import copy
from dataclasses import dataclass, field

import lightning.pytorch as pl
import pytest
import torch
from steps import STEPS, batches, captioner, loader, trainer_of

from capkit.distributed.collectives import rank, world_size
from capkit.testing.distributed import run_distributed
from capkit.train.callbacks.guard import SkipBadSteps

pytestmark = pytest.mark.integration

STRATEGIES = ("ddp", "zero1", "zero2", "zero3")
RUNS = {
    "not_finite": ({1: "loss", 2: "gradient"}, {}),
    "spike": ({2: "spike"}, {"spike_factor": 20, "num_steps": 2}),
}


class Poisoned:
    """An objective that goes wrong at given steps, on the last rank alone."""

    def __init__(self, objective, faults):
        self.objective, self.faults = objective, faults

    def num_targets(self, batch):
        return self.objective.num_targets(batch)

    def __call__(self, model, batch, step):
        output = self.objective(model, batch, step)
        fault = self.faults.get(step) if rank() == world_size() - 1 and model.training else None
        if fault == "loss":
            output.loss_sum = output.loss_sum * torch.nan
        elif fault == "gradient":  # the root of 0 is 0, its slope is not
            output.loss_sum = output.loss_sum + (output.loss_sum - output.loss_sum.detach()).sqrt()
        elif fault == "spike":
            output.loss_sum = output.loss_sum * 1e4
        return output


@dataclass
class Seen:
    lrs: list[float] = field(default_factory=list)
    skipped: list[bool] = field(default_factory=list)
    weights: list[dict[str, torch.Tensor]] = field(default_factory=list)
    moments: torch.Tensor | None = None
    updates: int = 0
    count: int = 0


class Watch(pl.Callback):
    def __init__(self):
        self.seen = Seen()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.lrs.append(pl_module.optimizers().param_groups[0]["lr"])
        self.seen.skipped.append(bool(outputs["skipped"]))
        self.seen.weights.append(copy.deepcopy(trainer.strategy.lightning_module_state_dict()))

    def on_train_end(self, trainer, pl_module):
        state = trainer.strategy.optimizer_state(trainer.optimizers[0])["state"]
        self.seen.moments = torch.cat([entry[name].flatten() for entry in state.values() for name in MOMENTS])
        self.seen.updates = int(next(iter(state.values()))["step"])
        self.seen.count = trainer.global_step


MOMENTS = ("exp_avg", "exp_avg_sq")


def train(strategy: str, run: str) -> Seen:
    faults, settings = RUNS[run]
    module, watch = captioner(2), Watch()
    module.objective = Poisoned(module.objective, faults)
    trainer_of(strategy, [SkipBadSteps(**settings), watch]).fit(module, loader(batches()))
    return watch.seen


def train_all(cases: list[tuple[str, str]]) -> list[Seen]:
    return [train(*case) for case in cases]


@pytest.fixture(scope="module")
def alone():
    return {run: train("auto", run) for run in RUNS}


@pytest.fixture(scope="module")
def two_ranks():
    cases = [(strategy, run) for strategy in STRATEGIES for run in RUNS]
    return dict(zip(cases, run_distributed(train_all, 2, cases, timeout_s=300)[0], strict=True))


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("strategy", ["auto", *STRATEGIES])
def test_bad_steps_change_nothing_and_the_others_are_those_of_one_process(strategy, run, alone, two_ranks):
    seen, reference = alone[run] if strategy == "auto" else two_ranks[strategy, run], alone[run]
    faults = RUNS[run][0]
    assert seen.skipped == [step in faults for step in range(STEPS)]
    for step in faults:
        before, after = seen.weights[step - 1], seen.weights[step]
        assert all(torch.equal(after[name], value) for name, value in before.items())
    last, first = seen.weights[-1], seen.weights[0]
    assert not all(torch.equal(last[name], value) for name, value in first.items())
    differences = [(last[name] - value).abs().mean() for name, value in reference.weights[-1].items()]
    assert max(differences) < 1e-4  # a step moves a weight by 0.01; AdamW makes much of a gradient near 0
    assert torch.isfinite(seen.moments).all()
    assert torch.allclose(seen.moments, reference.moments, rtol=1e-3, atol=1e-6)
    assert (seen.count, seen.updates) == (STEPS, STEPS - len(faults))


def test_the_learning_rate_stands_still_over_a_step_that_is_left_out(alone):
    lrs = alone["not_finite"].lrs
    assert lrs[1] == lrs[2] == lrs[3] < lrs[0]
