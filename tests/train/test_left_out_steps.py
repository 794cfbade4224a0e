"""Steps that the guard leaves out: what is recorded, what BatchNorm keeps, and what a resumed run does."""

import pytest
import rl_steps
import torch
from lightning.pytorch.callbacks import Callback
from rl_steps import batches_of_all_ranks, trainer_of
from torch import nn
from torch.utils.data import DataLoader

from capkit.decoding.config import Decoding
from capkit.errors import Diverged
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Linear
from capkit.run.folder import RunFolder
from capkit.train.callbacks.guard import SkipBadSteps
from capkit.train.callbacks.recorder import Recorder
from capkit.train.mle_module import MLEModule

STEPS = 5
BAD = (1, 2)


class SaveAfter(Callback):
    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def batches(bad):
    batches = batches_of_all_ranks(STEPS)
    for step in bad:
        batches[step].features[3] = torch.nan  # of one image
    return batches


def fit(folder, bad, first=0, ckpt=None, callbacks=(), **settings):
    model = rl_steps.captioner()
    model.project = nn.Sequential(model.project, nn.BatchNorm1d(5))
    module = MLEModule(model, CrossEntropy(0.1), AdamW(lr=0.01), Linear(), Decoding())
    recorder = Recorder(every_steps=2)
    recorder.attach(folder)
    trainer = trainer_of("auto", STEPS, [SkipBadSteps(**settings), recorder, *callbacks])
    trainer.fit(module, DataLoader(batches(bad)[first:], batch_size=None), ckpt_path=ckpt, weights_only=True)
    return module


def state(module):
    return {name: value.clone() for name, value in module.model.state_dict().items()}


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.open({})
    return folder


def test_left_out_steps_are_counted_and_neither_averages_nor_running_statistics_hold_a_nan(folder):
    with pytest.warns(UserWarning, match="step 2: left out, the loss is nan"):
        module = fit(folder, BAD)
    rows = folder.rows()
    assert [(r["step"], r["train/skipped_steps"]) for r in rows if "train/skipped_steps" in r] == [(2, 1), (3, 2)]
    losses = {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}
    assert list(losses) == [2, 4, 5] and all(loss == loss for loss in losses.values())
    assert all(torch.isfinite(value).all() for value in state(module).values())
    assert int(module.model.project[1].num_batches_tracked) == STEPS - len(BAD)
    lrs = {row["step"]: row["train/lr"] for row in rows if "train/lr" in row}
    assert lrs[4] == pytest.approx(0.01 * Linear()(1, STEPS))  # two of four steps moved it


def test_a_run_resumed_after_left_out_steps_ends_as_the_uninterrupted_one(folder, tmp_path):
    path = tmp_path / "after-3.ckpt"
    with pytest.warns(UserWarning, match="left out"):
        once = state(fit(folder, BAD, callbacks=[SaveAfter(3, path)]))
    again = state(fit(folder, BAD, first=3, ckpt=path))
    assert all(torch.equal(again[name], value) for name, value in once.items())


def test_too_many_bad_steps_in_a_row_end_the_run(folder):
    with pytest.warns(UserWarning, match="left out"), pytest.raises(Diverged, match="step 3: 2 updates in a row"):
        fit(folder, BAD, max_in_a_row=2)
