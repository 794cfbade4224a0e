"""Where weights are divided over ranks, changes to them during training are dropped: restoring has to come after it."""

import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from rl_steps import OBJECTIVES, loader, module_of, trainer_of

from capkit.testing.distributed import run_distributed
from capkit.train.callbacks.checkpoints import Checkpoints
from capkit.train.callbacks.degeneration import Degeneration


class SaveWhatReadersWant(Callback):
    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["capkit"] = {}


def outcome(strategy, folder):
    """Steps done, whether the weights are those of the start after the run, and whether they moved in between."""
    warnings.simplefilter("ignore")
    checkpoints = Checkpoints(every_steps=100)
    checkpoints.attach(Path(folder))
    degeneration = Degeneration({"rl/length": "<= 0"}, "restore", num_steps=2)
    module = module_of(OBJECTIVES["greedy"]())
    start = {name: value.clone() for name, value in module.state_dict().items()}
    moved = []

    class Moved(Callback):
        def on_train_end(self, trainer, pl_module):
            state = trainer.strategy.lightning_module_state_dict()
            moved.append(any(not torch.equal(state[name], start[name]) for name in state))

    callbacks = [degeneration, checkpoints, SaveWhatReadersWant(), Moved()]
    trainer = trainer_of(strategy, 4, callbacks)
    trainer.fit(module, loader(4))
    after = module.state_dict()
    return trainer.global_step, all(torch.equal(after[name].cpu(), start[name]) for name in start), moved


@pytest.mark.integration
@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
def test_the_weights_of_the_start_come_back_on_every_rank(strategy, tmp_path):
    ranks = run_distributed(outcome, 2, strategy, str(tmp_path))
    assert [rank[:2] for rank in ranks] == [(2, True), (2, True)]
    assert ranks[0][2] == [True]  # training had moved them
