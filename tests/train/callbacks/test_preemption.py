"""Signals to one rank or all, in each place of a training run: one agreed save, one exit status."""

import os
import signal
import time

import pytest
import torch
from scripted import Scripted, rows, trainer_of

from capkit.checkpoint.loading import read_checkpoint
from capkit.distributed.collectives import rank
from capkit.errors import STOPPED_STATUS
from capkit.fault_tolerance import stop_signal
from capkit.fault_tolerance.stop_signal import stoppable
from capkit.testing.distributed import run_distributed
from capkit.train.callbacks.checkpoints import Checkpoints
from capkit.train.callbacks.preemption import Preemption

VALIDATIONS = {step: {"cider": 1.0} for step in range(20)}
SIGTERM, SIGUSR1, SIGUSR2 = signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2
# What is signalled: in which place, on which ranks, by which signal.
CASES = {
    "the_main_rank": ("step", [0], SIGTERM),
    "another_rank": ("step", [1], SIGTERM),
    "all_ranks": ("step", [0, 1], SIGTERM),
    "usr1": ("step", [1], SIGUSR1),
    "usr2": ("step", [0], SIGUSR2),
    "a_validation": ("validation", [1], SIGTERM),
    "again_while_saving": ("step", [1], SIGTERM),
    "ctrl_c": ("step", [0, 1], signal.SIGINT),
    "ctrl_c_to_another_rank": ("validation", [1], signal.SIGINT),
}


class Signalled(Scripted):
    """Its process gets a signal in its fourth step, or in the second batch of the validation that follows it."""

    def __init__(self, case):
        super().__init__(validations=VALIDATIONS)
        self.case = case
        self.saves = self.validated = 0

    def signal_at(self, here):
        place, ranks, number = CASES[self.case]
        if here == place and rank() in ranks:
            os.kill(os.getpid(), number)

    def training_step(self, batch, batch_idx):
        if self.global_step == 3:
            self.signal_at("step")
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        if batch_idx == 1:
            self.signal_at("validation")
            time.sleep(3 * stop_signal.POLL_S)  # a validation may take long: by its end both ranks know
        self.validated += 1
        super().validation_step(batch, batch_idx)

    def on_save_checkpoint(self, checkpoint):
        self.saves += 1
        if self.case == "again_while_saving":
            os.kill(os.getpid(), SIGTERM)
            os.kill(os.getpid(), SIGUSR1)


def stopped_run(folder, case):
    """What this rank did until it left, and how it left."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests are a shell's background job
    checkpoints, preemption = Checkpoints(), Preemption()
    checkpoints.attach(folder)
    module = Signalled(case)
    trainer = trainer_of([checkpoints, preemption], max_steps=10, val_every=4)
    status = None
    try:
        with stoppable():
            trainer.strategy.setup_environment()
            preemption.listen(trainer)
            trainer.fit(module, rows(10), rows(20))
    except SystemExit as ended:
        status = ended.code
    return {"status": status, "step": trainer.global_step, "saves": module.saves, "validated": module.validated}


def all_cases(folder):
    before = signal.getsignal(SIGTERM)
    found = {case: stopped_run(folder / case, case) for case in CASES}
    assert signal.getsignal(SIGTERM) is before, "after a task, signals do again what they did"
    return found


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preempted")
    return folder, run_distributed(all_cases, 2, folder)


@pytest.mark.integration
@pytest.mark.parametrize("case", CASES)
def test_a_signal_is_one_save_of_the_last_step_and_one_status_on_every_rank(outcomes, case):
    folder, ranks = outcomes
    found = [outcome[case] for outcome in ranks]
    assert [each["status"] for each in found] == [130 if case.startswith("ctrl_c") else 75] * 2
    assert [each["step"] for each in found] == [4, 4]
    assert [each["saves"] for each in found] == [1, 1]
    (path,) = (folder / case).glob("step-*")
    saved = read_checkpoint(path)
    assert saved["global_step"] == 4 and saved["state_dict"]["weight"].item() == 4


@pytest.mark.integration
def test_the_save_does_not_wait_for_the_end_of_a_validation(outcomes):
    _, ranks = outcomes
    assert [outcome["a_validation"]["validated"] for outcome in ranks] == [2, 2]
    assert [outcome["all_ranks"]["validated"] for outcome in ranks] == [0, 0]


def test_a_step_that_was_just_saved_is_not_saved_again(tmp_path, capsys):
    module, checkpoints, preemption = Signalled("the_main_rank"), Checkpoints(every_steps=2), Preemption()
    checkpoints.attach(tmp_path)
    trainer = trainer_of([checkpoints, preemption], max_steps=10)
    with pytest.raises(SystemExit) as ended, stoppable():
        preemption.listen(trainer)
        trainer.fit(module, rows(10))
    assert ended.value.code == STOPPED_STATUS
    assert module.saves == 2 and (tmp_path / "step-00000004.ckpt").exists()
    told = capsys.readouterr().out
    assert f"stopped by SIGTERM; step 4 was the last, saved in {tmp_path}; the same command with run_dir=" in told


def test_without_a_signal_a_run_ends_as_ever(tmp_path):
    module, preemption = Scripted(), Preemption()
    trainer = trainer_of([preemption], max_steps=3)
    with stoppable():
        preemption.listen(trainer)
        trainer.fit(module, rows(3))
    assert torch.equal(module.weight.detach(), torch.tensor([3.0]))
