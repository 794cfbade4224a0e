import errno
import math
import os
import warnings
from pathlib import Path

import pytest
from scripted import Killed, Scripted, fit

from capkit.checkpoint import files as checkpoint_files
from capkit.errors import UsageError
from capkit.testing.distributed import run_distributed
from capkit.train.callbacks.checkpoints import Checkpoints
from capkit.train.callbacks.degeneration import Degeneration

LIMIT = {"rl/repetition": "<= 0.3"}
FINE = [{"rl/repetition": 0.1}] * 12
RISING = [{"rl/repetition": value} for value in (0.1, 0.1, 0.1, 0.1, 0.1, 0.4, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6)]


def checkpoints_in(folder, every_steps=2, keep_last=2):
    checkpoints = Checkpoints(every_steps=every_steps, keep_last=keep_last)
    checkpoints.attach(folder)
    return checkpoints


def run(steps, *callbacks, validations=None):
    """Steps done, the final weight, and the warnings of the callback by the step they name."""
    module = Scripted(steps, validations)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = fit(module, callbacks, max_steps=len(steps), val_every=len(steps))
    told = [str(w.message) for w in caught if "degenerates" in str(w.message)]
    return trainer.global_step, int(module.weight), told


def test_numbers_inside_their_limits_change_nothing():
    assert run(FINE, Degeneration(LIMIT, "stop", num_steps=3)) == (12, 12, [])


def test_one_odd_batch_does_not_fire():
    odd = [{"rl/repetition": 0.7 if step in (0, 6) else 0.1} for step in range(12)]
    assert run(odd, Degeneration(LIMIT, "stop", num_steps=3))[2] == []  # (0.1 + 0.7 + 0.1) / 3 = 0.3, the limit
    steps_done, _, told = run(odd, Degeneration(LIMIT, "stop", num_steps=1))
    assert steps_done == 1 and len(told) == 1


def test_the_mean_over_the_window_fires():
    # Means of three: step 6 (0.1 + 0.1 + 0.4) / 3 = 0.2, step 7 (0.1 + 0.4 + 0.5) / 3 = 0.333.
    steps_done, _, (told,) = run(RISING, Degeneration(LIMIT, "stop", num_steps=3))
    assert steps_done == 7
    assert told.startswith("step 7: ") and "rl/repetition is 0.3333, its limit <= 0.3" in told
    assert "training ends" in told and "docs/monitors.md" in told


def test_a_limit_from_below_fires_too():
    steps = [{"rl/distinct_2": value} for value in (0.5, 0.5, 0.1, 0.1)]
    assert run(steps, Degeneration({"rl/distinct_2": ">= 0.2"}, "stop", num_steps=2))[0] == 4  # means .5 .5 .3 .1


def test_warn_is_once_for_each_monitor_and_crossing_and_training_goes_on():
    repetition = (0.1, 0.9, 0.9, 0.1, 0.1, 0.9, 0.9, 0.9)
    length = (5, 5, 5, 5, 50, 50, 50, 50)
    steps = [{"rl/repetition": a, "rl/length": b} for a, b in zip(repetition, length, strict=True)]
    steps_done, _, told = run(steps, Degeneration({**LIMIT, "rl/length": "<= 20"}, "warn", num_steps=2))
    # Means of repetition: .5 at step 2 (out), .9, .5, .1 at step 5 (in), .5 at step 6 (out). Of length: 27.5 at step 5.
    assert steps_done == 8
    assert [(text.split(":")[0], "repetition" in text, "length" in text) for text in told] == [
        ("step 2", True, False), ("step 5", False, True), ("step 6", True, False),
    ]  # fmt: skip


def test_stop_saves_and_validates_the_last_step(tmp_path):
    module = Scripted(RISING, {7: {"cider": 0.5}})
    with pytest.warns(UserWarning, match="degenerates"):
        trainer = fit(module, [Degeneration(LIMIT, "stop", 3), checkpoints_in(tmp_path)], len(RISING), val_every=12)
    assert float(trainer.callback_metrics["val/cider"]) == 0.5 and int(module.weight) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000006.ckpt", "step-00000007.ckpt"]


def test_a_stopped_run_that_is_started_again_stays_stopped(tmp_path):
    run(RISING, Degeneration(LIMIT, "stop", 3), checkpoints_in(tmp_path))
    again = Scripted(RISING)
    trainer = fit(
        again, [Degeneration(LIMIT, "stop", 3), checkpoints_in(tmp_path)], 12, ckpt_path=tmp_path / "step-00000007.ckpt"
    )
    assert trainer.global_step == 7 and int(again.weight) == 7


def test_restore_brings_back_the_newest_weights_that_were_inside(tmp_path):
    degeneration = Degeneration(LIMIT, "restore", 3)
    assert degeneration.restored_step is None
    steps_done, weight, (told,) = run(RISING, degeneration, checkpoints_in(tmp_path))
    # Saved at 0, 2, 4 and 6. At step 6 the mean is inside, but its own 0.4 is not.
    assert (steps_done, weight) == (7, 4) and "the weights of step 4 are restored" in told
    assert degeneration.restored_step == 4
    assert not (tmp_path / "step-00000007.ckpt").exists()


def test_the_checkpoint_to_restore_outlives_newer_ones(tmp_path):
    slow = [{"rl/repetition": 0.1}] * 4 + [{"rl/repetition": 0.31}] * 4 + [{"rl/repetition": 0.9}] * 4
    callbacks = Degeneration(LIMIT, "restore", num_steps=8), checkpoints_in(tmp_path, every_steps=2, keep_last=1)
    # Means of eight: .205 at step 8, (3 * .1 + 4 * .31 + .9) / 8 = .305 at step 9; steps 6 and 8 were saved in between.
    assert run(slow, *callbacks)[:2] == (9, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004.ckpt", "step-00000008.ckpt"]


def test_restore_before_the_first_checkpoint_goes_back_to_the_start(tmp_path):
    broken = [{"rl/repetition": 0.9}] * 4
    assert run(broken, Degeneration(LIMIT, "restore", 2), checkpoints_in(tmp_path, every_steps=100))[:2] == (2, 0)


def test_a_step_that_could_not_be_saved_is_none_to_go_back_to(tmp_path, monkeypatch):
    write = checkpoint_files.save_file

    def full_at_step_4(tensors, *args):
        if int(tensors["weight"]) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(tensors, *args)

    monkeypatch.setattr(checkpoint_files, "save_file", full_at_step_4)
    steps_done, weight, _ = run(RISING, Degeneration(LIMIT, "restore", 3), checkpoints_in(tmp_path))
    assert (steps_done, weight) == (7, 2)  # else those of step 4


def test_nothing_after_a_restore_is_saved_as_best(tmp_path):
    checkpoints = Checkpoints(every_steps=2, select="max cider")
    checkpoints.attach(tmp_path)
    run(RISING, Degeneration(LIMIT, "restore", 3), checkpoints, validations={7: {"cider": 9.0}})
    assert checkpoints.best_path is None


@pytest.mark.parametrize("order", [1, -1], ids=["listed before checkpoints", "listed after"])
@pytest.mark.parametrize("kill_after", [2, 4, 6])
def test_a_resumed_run_decides_as_the_uninterrupted_one(tmp_path, kill_after, order):
    whole = run(RISING, *[Degeneration(LIMIT, "restore", 3), checkpoints_in(tmp_path / "whole")][::order])
    first, second = tmp_path / "killed", Scripted(RISING)
    with pytest.raises(Killed):
        dying = Scripted(RISING, dies_at=kill_after)
        fit(dying, [Degeneration(LIMIT, "restore", 3), checkpoints_in(first)][::order], max_steps=12)
    newest = first / f"step-{kill_after:08d}.ckpt"
    with pytest.warns(UserWarning, match="step 7: .* is 0.3333.*the weights of step 4 are restored"):
        trainer = fit(second, [Degeneration(LIMIT, "restore", 3), checkpoints_in(first)][::order], 12, ckpt_path=newest)
    assert (trainer.global_step, int(second.weight)) == whole[:2] == (7, 4)


def test_a_warning_is_not_repeated_after_a_resume(tmp_path):
    with pytest.raises(Killed), pytest.warns(UserWarning, match="step 7: .*degenerates"):
        fit(Scripted(RISING, dies_at=8), [Degeneration(LIMIT, "warn", 3), checkpoints_in(tmp_path)], max_steps=12)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*degenerates")
        callbacks = [Degeneration(LIMIT, "warn", 3), checkpoints_in(tmp_path)]
        fit(Scripted(RISING), callbacks, 12, ckpt_path=tmp_path / "step-00000008.ckpt")


def test_nan_is_left_out_of_the_mean_and_nothing_but_nan_is_outside():
    gaps = [{"rl/repetition": math.nan if step % 2 else 0.1} for step in range(6)]
    assert run(gaps, Degeneration(LIMIT, "stop", 2))[2] == []
    steps_done, _, (told,) = run([{"rl/repetition": math.nan}] * 6, Degeneration(LIMIT, "stop", 2))
    assert steps_done == 2 and "rl/repetition is nan" in told


def test_a_name_that_is_not_logged_is_refused_with_those_that_are():
    steps = [{"rl/kl": 0.1, "loss": 1.0}] * 3
    with pytest.raises(UsageError, match=r"rl/repetition is not logged; logged: rl/kl, train/loss; .*null"):
        fit(Scripted(steps), [Degeneration(LIMIT)], max_steps=3)


def test_names_without_a_section_are_those_of_train():
    assert run([{"grad_norm": 9.0}] * 3, Degeneration({"train/grad_norm": "<= 5"}, "stop", 2))[0] == 2


def test_null_takes_a_limit_away():
    assert run([{"x": 1.0}] * 2, Degeneration({"rl/repetition": None}, "stop", 1))[0] == 2


@pytest.mark.parametrize("text", ["0.3", "< 0.3", "<= high", "<= 0.9 * initial", ""])
def test_a_limit_that_cannot_be_read_is_refused(text):
    with pytest.raises(UsageError, match=r'"<= NUMBER" or ">= NUMBER"'):
        Degeneration({"rl/repetition": text})


def test_other_wrong_arguments_are_refused():
    with pytest.raises(UsageError, match="warn, stop or restore"):
        Degeneration(LIMIT, "halt")
    with pytest.raises(UsageError, match="num_steps: expected an integer of at least 1"):
        Degeneration(LIMIT, num_steps=0)
    with pytest.raises(UsageError, match="restore needs callback=checkpoints"):
        fit(Scripted(FINE), [Degeneration(LIMIT, "restore")], max_steps=1)


def _restored_on_this_rank(folder):
    # Of two ranks the second sees 1 more than the first, so the mean is 0.5 more than what is written down.
    low = [{"rl/repetition": row["rl/repetition"] - 0.5} for row in RISING]
    module, degeneration = Scripted(low), Degeneration(LIMIT, "restore", 3)
    trainer = fit(module, [degeneration, checkpoints_in(Path(folder))], max_steps=12)
    return trainer.global_step, int(module.weight), degeneration.state_dict()


@pytest.mark.integration
def test_two_ranks_decide_alike_on_what_they_see_together(tmp_path):
    first, second = run_distributed(_restored_on_this_rank, 2, str(tmp_path))
    assert first == second and first[:2] == (7, 4)
