"""Numbers that a step leaves on the device: means, and what the host does with them a step later.

A GPU decides, and the host learns of it later. Here a CPU plays the GPU: its numbers are held back as a GPU's are, and
its optimizer is fused, so that it leaves a step out by the flag. Runs on a GPU itself are in test_host_waits.py.
"""

import math

import pytest
import rl_steps
import torch
from lightning.pytorch.callbacks import Callback
from rl_steps import batches_of_all_ranks, trainer_of
from torch.utils.data import DataLoader

from capkit.decoding.config import Decoding
from capkit.distributed.collectives import device_means_over_ranks, means_over_ranks
from capkit.errors import Diverged
from capkit.objectives.cross_entropy import CrossEntropy
from capkit.optim.optimizers import AdamW
from capkit.optim.schedules import Linear
from capkit.run.folder import RunFolder
from capkit.train.callbacks.guard import SkipBadSteps
from capkit.train.callbacks.recorder import Recorder
from capkit.train.mle_module import MLEModule

STEPS, BAD = 6, (1, 2)


class Fused(AdamW):
    def __call__(self, model):
        return torch.optim.AdamW(self.groups(model), lr=self.lr, eps=self.eps, fused=True)


class Late(MLEModule):
    """Numbers reach the host at the next `settle`, as from a GPU."""

    def tell_later(self, numbers, told):
        settle, self.settle = self.settle, lambda: None
        super().tell_later(numbers, told)
        self.settle = settle


class Watch(Callback):
    def __init__(self):
        self.lrs, self.skipped = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.lrs.append(pl_module.optimizers().param_groups[0]["lr"])
        self.skipped.append(bool(outputs["skipped"]))


def fit(folder, late, bad=BAD, **settings):
    batches = batches_of_all_ranks(STEPS)
    for step in bad:
        batches[step].features[3] = torch.nan
    # A larger eps keeps rounding small where a gradient is zero but for it (biases of keys).
    optimizer = (Fused if late else AdamW)(lr=0.01, eps=1e-4)
    module = (Late if late else MLEModule)(rl_steps.captioner(), CrossEntropy(), optimizer, Linear(), Decoding())
    recorder, watch = Recorder(every_steps=2), Watch()
    recorder.attach(folder)
    trainer_of("auto", STEPS, [SkipBadSteps(**settings), recorder, watch]).fit(
        module, DataLoader(batches, batch_size=None)
    )
    return module, watch


def opened(path):
    folder = RunFolder(path)
    folder.open({})
    return folder


def rows_of(folder):
    rows = [{k: v for k, v in row.items() if "images_per" not in k and k != "time"} for row in folder.rows()]
    return sorted(rows, key=lambda row: (row["step"], "train/loss" in row))


@pytest.mark.filterwarnings("ignore:step")
def test_a_run_whose_numbers_come_late_is_that_of_a_run_which_waits(tmp_path):
    """Learning rates stand still over left-out steps although the host hears of them later; the rows are the same."""
    at_once, later = opened(tmp_path / "a"), opened(tmp_path / "b")
    module, watch = fit(at_once, late=False)
    again, seen = fit(later, late=True)
    assert watch.skipped == seen.skipped == [step in BAD for step in range(STEPS)]
    assert watch.lrs == seen.lrs and len(set(seen.lrs)) == STEPS - len(BAD)
    for row, other in zip(rows_of(at_once), rows_of(later), strict=True):
        assert row.keys() == other.keys()
        assert all(other[name] == pytest.approx(value, rel=1e-5) for name, value in row.items() if name != "at")
    for name, value in module.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert again.guard.skipped_steps == len(BAD)


def test_too_many_in_a_row_end_the_run_a_step_later_without_another_update(tmp_path):
    with pytest.warns(UserWarning, match="left out"), pytest.raises(Diverged, match="step 3: 2 updates in a row"):
        fit(opened(tmp_path / "a"), late=True, max_in_a_row=2)


@pytest.mark.filterwarnings("ignore:step")
def test_a_bad_last_step_is_counted_before_the_run_ends(tmp_path):
    module, _ = fit(opened(tmp_path / "a"), late=True, bad=(STEPS - 1,))
    assert module.guard.skipped_steps == 1


def test_numbers_of_a_gradient_are_not_waited_for_in_its_own_update():
    """The host would idle until the gradient is there, and the device while the host launches the update."""
    told = []

    class Tells(Late):
        def backward_batch(self, batch, step):
            logs = super().backward_batch(batch, step)
            self.tell_later([logs["loss"]], lambda values: told.append((step, self.made)))
            return logs

        def update(self, *args, **kwargs):
            super().update(*args, **kwargs)
            self.made += 1

    module = Tells(rl_steps.captioner(), CrossEntropy(), Fused(lr=0.01), Linear(), Decoding())
    module.made = 0
    trainer_of("auto", STEPS, [SkipBadSteps()]).fit(module, DataLoader(batches_of_all_ranks(STEPS), batch_size=None))
    assert told == [(step, step + 1) for step in range(STEPS)]


def test_a_checkpoint_holds_what_was_still_to_be_told():
    guard = SkipBadSteps()
    module = Late(rl_steps.captioner(), CrossEntropy(), AdamW(lr=0.01), Linear(), Decoding())
    guard._module, module.guard = module, guard
    numbers = torch.tensor([math.nan, 1.0, 1.0])
    module.tell_later(list(numbers), lambda told: guard.count(1, told[0], told[1], bool(told[2]), True))
    assert guard.skipped_steps == 0
    assert guard.state_dict()["skipped_steps"] == 1


def test_means_on_a_device_are_those_of_the_host():
    sums = {"b": (torch.tensor(3.0), 4), "a": (0.5, torch.tensor(2)), "none": (0.0, torch.tensor(0))}
    host, device = means_over_ranks(sums), device_means_over_ranks(sums, torch.device("cpu"))
    assert {name: float(value) for name, value in device.items() if name != "none"} == {"a": 0.25, "b": 0.75}
    assert list(host) == list(device) and math.isnan(device["none"]) and math.isnan(host["none"])
