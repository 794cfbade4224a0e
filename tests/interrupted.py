"""A training run that dies in the middle, for tests of what goes on from its checkpoint."""

import pytest
import torch

from capkit.checkpoint.files import load_checkpoint
from capkit.cli import main


def interrupt_and_resume(command, module, monkeypatch):
    """Run a command whose first attempt dies before `module`'s step 2, as of a pulled plug; the second one ends."""
    step = module.training_step

    def die_at_step_2(self, batch, batch_idx):
        if self.global_step == 2:
            raise RuntimeError("pulled the plug")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(module, "training_step", die_at_step_2)
        with pytest.raises(RuntimeError, match="pulled the plug"):
            main(command)
    assert main(command) == 0


def numbers(run, *kept):
    """What each step of a run logged under names that begin with one of `kept`; wall time is none of it."""
    rows = [{name: value for name, value in row.items() if name.startswith(kept)} for row in run.current_rows()]
    return [row for row in rows if row]


def assert_equal_weights(run, other, checkpoint="step-00000004.ckpt"):
    ours, theirs = (load_checkpoint(one.checkpoints / checkpoint)["state_dict"] for one in (run, other))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
