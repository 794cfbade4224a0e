import math
import resource
import warnings
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback
from scripted import Scripted, fit, rows, train, trainer_of

from capkit.checkpoint.files import check_integrity, load_checkpoint, saved_step
from capkit.distributed.collectives import rank
from capkit.errors import UsageError
from capkit.testing.distributed import run_distributed
from capkit.train.callbacks import checkpoints as checkpoints_module
from capkit.train.callbacks.checkpoints import Checkpoints, Look

CURVE = {
    0: {"clip_score": 0.5, "cider": 1.0},
    2: {"clip_score": 0.6, "cider": 0.95},
    4: {"clip_score": 0.7, "cider": 0.91},
    6: {"clip_score": 0.9, "cider": 0.2},  # the highest clip_score is the degenerate one
    8: {"clip_score": 0.65, "cider": 1.1},
}
SELECT = "max clip_score s.t. cider >= 0.9 * initial"


def checkpoints_in(folder, **arguments):
    checkpoints = Checkpoints(**arguments)
    checkpoints.attach(folder)
    return checkpoints


def saved(path):
    """The step whose weights a checkpoint holds."""
    return int(load_checkpoint(path)["state_dict"]["weight"])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def validate_then_fit(module, callback, max_steps=8):
    trainer = trainer_of([callback], max_steps, val_every=2)
    trainer.validate(module, rows(1), verbose=False)
    train(trainer, module)


def test_a_checkpoint_each_so_many_steps_and_at_the_end_of_which_the_newest_stay(tmp_path):
    fit(Scripted(), [checkpoints_in(tmp_path, every_steps=2, keep_last=2)], max_steps=5)
    assert names(tmp_path) == ["step-00000004.ckpt", "step-00000005.ckpt"]
    assert saved(tmp_path / "step-00000004.ckpt") == 4


class Clock:
    """A clock that this rank's steps move: rank r's runs r + 1 times as fast."""

    def __init__(self):
        self.seconds = 0.0

    def monotonic(self):
        return self.seconds


class Slow(Scripted):
    """Each step takes `seconds` of its clock."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def training_step(self, batch, batch_idx):
        self.clock.seconds += self.seconds * (rank() + 1)
        return super().training_step(batch, batch_idx)


def saves_by_time(folder, step_s, max_steps, **arguments):
    """The steps that this rank saved."""
    clock, steps = Clock(), []
    module = Slow(clock, step_s)
    module.on_save_checkpoint = lambda checkpoint: steps.append(module.global_step)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoints_module, "time", clock)
        fit(module, [checkpoints_in(folder, keep_last=99, **arguments)], max_steps=max_steps)
    return steps


@pytest.mark.parametrize(
    ("step_s", "arguments", "expected"),
    [
        (30.0, {"every_minutes": 1}, [2, 4, 6, 7]),
        (90.0, {"every_minutes": 1}, [1, 2, 3, 4, 5, 6, 7]),  # no step is saved twice
        (30.0, {"every_minutes": 1, "every_steps": 3}, [2, 3, 5, 6, 7]),  # each save starts the time anew
        (30.0, {"every_minutes": None}, [7]),
        (1.0, {}, [7]),
    ],
)
def test_a_checkpoint_after_so_many_minutes_as_well(tmp_path, step_s, arguments, expected):
    assert saves_by_time(tmp_path, step_s, 7, **arguments) == expected


@pytest.mark.integration
def test_ranks_save_by_the_clock_of_the_first(tmp_path):
    assert run_distributed(saves_each_minute, 2, tmp_path) == [[2, 4, 6, 7]] * 2


def saves_each_minute(folder):
    return saves_by_time(folder, 30.0, 7, every_minutes=1)


def test_the_clock_is_looked_at_about_every_ten_seconds():
    look, steps = Look(), []
    for step in range(1, 2001):
        if step >= look.next_step:
            look = look.after(step, 0.1 * step)
            steps.append(step)
    assert steps[:4] == [1, 3, 7, 15] and steps[-1] - steps[-2] == pytest.approx(100, abs=1)
    assert look.after(2001, 1e6).next_step == 2002  # a slow step: at the next one again


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_that_are_no_time_are_refused(minutes):
    with pytest.raises(UsageError, match="every_minutes: expected a finite number greater than 0 or None"):
        Checkpoints(every_minutes=minutes)


def test_a_best_that_another_number_chose_is_no_measure_for_a_run_that_goes_on(tmp_path):
    before = Checkpoints(monitor="val/cider")
    before.best = 100.0
    by_loss, by_cider = Checkpoints(monitor="val/loss", mode="min"), Checkpoints(monitor="val/cider")
    for callback in (by_loss, by_cider):
        callback.load_state_dict(before.state_dict())
    assert (by_loss.best, by_cider.best) == (None, 100.0)


def test_those_of_each_so_many_steps_stay_for_good(tmp_path):
    callback = checkpoints_in(tmp_path, every_steps=1, keep_last=2, keep_every_steps=3)
    fit(Scripted(), [callback], max_steps=8)
    assert [int(name[5:13]) for name in names(tmp_path)] == [3, 6, 7, 8]


@pytest.mark.parametrize("arguments", [{"keep_every_steps": 3}, {"keep_every_steps": 5}])
def test_a_history_that_no_save_falls_on_is_refused(arguments):
    with pytest.raises(UsageError, match="expected keep_every_steps to be a multiple of every_steps=2, or null"):
        Checkpoints(every_steps=2, **arguments)


def test_an_older_checkpoint_resumed_leaves_later_ones_until_it_comes_to_them(tmp_path):
    fit(Scripted(), [checkpoints_in(tmp_path, every_steps=2, keep_last=3)], max_steps=6)
    older = tmp_path / "step-00000002.ckpt"
    fit(Scripted(), [checkpoints_in(tmp_path, every_steps=3, keep_last=1)], max_steps=3, ckpt_path=older)
    assert [int(name[5:13]) for name in names(tmp_path)] == [3, 4, 6]


def test_monitor_keeps_the_highest_and_with_min_the_lowest(tmp_path):
    for mode, step in (("max", 6), ("min", 2)):
        folder = tmp_path / mode
        callback = checkpoints_in(folder, monitor="val/clip_score", mode=mode)
        fit(Scripted(validations=CURVE), [callback], max_steps=8, val_every=2)
        assert saved(folder / "best.ckpt") == step
        assert callback.best_path is None  # the task evaluates the last weights, as ever


def test_select_keeps_the_best_that_keeps_to_its_limit(tmp_path):
    callback = checkpoints_in(tmp_path, select=SELECT)
    validate_then_fit(Scripted(validations=CURVE), callback)
    # Allowed is cider of 0.9 * 1.0 and more: steps 0, 2, 4 and 8; of them step 4 has the highest clip_score.
    assert callback.best_path == tmp_path / "best.ckpt" and saved(callback.best_path) == 4


def test_a_judges_metric_may_be_named_without_its_mean(tmp_path):
    curve = {step: {"clip_score_mean": row["clip_score"], "cider": row["cider"]} for step, row in CURVE.items()}
    callback = checkpoints_in(tmp_path, select=SELECT)
    validate_then_fit(Scripted(validations=curve), callback)
    assert saved(callback.best_path) == 4
    with pytest.raises(UsageError, match=r"logged: cider, clip_score_mean$"):
        fit(Scripted(validations=curve), [checkpoints_in(tmp_path, select="max cilp_score")], 8, val_every=2)


def test_initial_is_the_first_validation_wherever_it_stands(tmp_path):
    # Without a validation before training it is that of step 2, 0.95: steps 2 and 4 are within 0.475 .. 0.95.
    callback = checkpoints_in(tmp_path, select="max clip_score s.t. cider <= 1 * initial and cider >= 0.5 * initial")
    fit(Scripted(validations=CURVE), [callback], max_steps=8, val_every=2)
    assert callback.initial["cider"] == pytest.approx(0.95) and saved(callback.best_path) == 4


def test_the_start_is_kept_where_nothing_after_it_keeps_to_the_limits(tmp_path):
    callback = checkpoints_in(tmp_path, select="max clip_score s.t. cider >= 1 * initial and cider <= 1.05")
    validate_then_fit(Scripted(validations=CURVE), callback)
    checkpoint = load_checkpoint(callback.best_path)
    assert checkpoint["global_step"] == 0 and saved(callback.best_path) == 0
    assert checkpoint["optimizer_states"]  # whole: training could go on from it


def test_no_validation_within_the_limits_is_said(tmp_path):
    callback = checkpoints_in(tmp_path, select="max clip_score s.t. cider >= 2")
    with pytest.warns(UserWarning, match=r"no best\.ckpt.*cider >= 2"):
        fit(Scripted(validations=CURVE), [callback], max_steps=8, val_every=2)
    assert callback.best_path is None and not (tmp_path / "best.ckpt").exists()


def test_a_monitor_that_was_never_a_number_is_said(tmp_path):
    callback = checkpoints_in(tmp_path, monitor="val/cider")
    with pytest.warns(UserWarning, match=r"no best\.ckpt: val/cider was NaN"):
        fit(
            Scripted(validations={step: {"cider": math.nan} for step in range(9)}), [callback], max_steps=8, val_every=2
        )
    assert callback.kept_best is None


def test_one_within_the_limits_is_not_complained_about(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="no best.ckpt")
        fit(Scripted(validations=CURVE), [checkpoints_in(tmp_path, select=SELECT)], max_steps=8, val_every=2)


def test_a_name_that_no_validation_logs_is_refused_with_those_that_are(tmp_path):
    for arguments in ({"select": "max clip_scroe"}, {"select": "max cider s.t. clip_scroe >= 1"}):
        with pytest.raises(UsageError, match=r"clip_scroe is not logged; logged: cider, clip_score$"):
            fit(Scripted(validations=CURVE), [checkpoints_in(tmp_path, **arguments)], max_steps=8, val_every=2)
    with pytest.raises(UsageError, match=r"monitor=cider is not logged; logged: val/cider"):
        fit(Scripted(validations=CURVE), [checkpoints_in(tmp_path, monitor="cider")], max_steps=8, val_every=2)


@pytest.mark.parametrize("arguments", [{"monitor": "val/cider"}, {"mode": "min"}])
def test_one_way_to_choose_the_best_not_two(arguments):
    with pytest.raises(UsageError, match="select, or monitor and mode"):
        Checkpoints(select=SELECT, **arguments)


def test_an_expression_that_cannot_be_read_is_refused_at_once():
    with pytest.raises(UsageError, match="is not understood"):
        Checkpoints(select="max clip_score where cider >= 1")


def test_nan_is_not_the_best(tmp_path):
    curve = {2: {"cider": float("nan")}, 4: {"cider": 0.1}}
    for arguments in ({"monitor": "val/cider"}, {"select": "max cider"}):
        fit(Scripted(validations=curve), [checkpoints_in(tmp_path, **arguments)], max_steps=4, val_every=2)
        assert saved(tmp_path / "best.ckpt") == 4


class _Unplugged(Scripted):
    def on_validation_end(self):
        if self.global_step == 4:
            raise RuntimeError("unplugged")


def test_a_run_that_died_after_its_best_validation_remembers_it(tmp_path):
    def callback():
        return checkpoints_in(tmp_path, select=SELECT, every_steps=4)

    module = _Unplugged(validations=CURVE)
    with pytest.raises(RuntimeError, match="unplugged"):
        validate_then_fit(module, callback())
    # The checkpoint of step 4 was written before the validation that made step 4 the best.
    newest = tmp_path / "step-00000004.ckpt"
    (state,) = (s for k, s in load_checkpoint(newest)["callbacks"].items() if "Checkpoints" in k)
    assert state["best"] == pytest.approx(0.6)
    resumed = callback()
    fit(Scripted(validations=CURVE), [resumed], max_steps=8, val_every=2, ckpt_path=newest)
    assert resumed.best == pytest.approx(0.7) and saved(resumed.best_path) == 4
    assert resumed.initial["cider"] == 1.0


class FullDisk(Callback):
    """The system lets no file grow during these steps, on any rank. Stands before and after what it is to disturb."""

    def __init__(self, steps, is_full=True):
        self.steps, self.size = steps, 0 if is_full else resource.RLIM_INFINITY

    def limit(self, trainer):
        if trainer.global_step in self.steps:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.limit(trainer)

    def on_validation_end(self, trainer, pl_module):
        self.limit(trainer)


def fit_on_a_disk_that_is_full_at_steps(steps, checkpoints, max_steps):
    rows = []
    checkpoints.attach(checkpoints.folder, lambda step, numbers: rows.append((step, numbers)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        callbacks = [FullDisk(steps), checkpoints, FullDisk(steps, is_full=False)]
        trainer = fit(Scripted(validations=CURVE), callbacks, max_steps, val_every=2)
    told = [str(warning.message) for warning in caught if "not saved" in str(warning.message)]
    return trainer.global_step, rows, told


def on_two_ranks(folder):
    middle = checkpoints_in(Path(folder, "middle"), every_steps=1, keep_last=1)
    outcome = fit_on_a_disk_that_is_full_at_steps({2, 3}, middle, max_steps=4)
    last = checkpoints_in(Path(folder, "last"), every_steps=1, keep_last=1)
    fit_on_a_disk_that_is_full_at_steps({4}, last, max_steps=4)
    return *outcome, middle.failure, last.failure


@pytest.mark.integration
def test_a_full_disk_is_loud_and_all_ranks_go_on_and_try_again(tmp_path):
    (steps, rows, told, *failures), (other_steps, other_rows, other_told, *other_failures) = run_distributed(
        on_two_ranks, 2, str(tmp_path)
    )
    assert (steps, other_steps) == (4, 4)
    assert rows == [(2, {"checkpoint/failed": 1.0}), (3, {"checkpoint/failed": 2.0})]
    assert len(told) == 2 and told[0].startswith("step 2: ") and "File too large" in told[0]
    assert other_rows == other_told == []  # told once, by rank 0
    assert (
        names(tmp_path / "middle") == ["step-00000004.ckpt"]
        and check_integrity(tmp_path / "middle/step-00000004.ckpt") is None
    )
    # Where it is the last step that fails, both ranks know, and what was saved before is whole.
    assert failures == other_failures and failures[0] is None and "step-00000004.ckpt was not saved" in failures[1]
    assert (
        names(tmp_path / "last") == ["step-00000003.ckpt"]
        and check_integrity(tmp_path / "last/step-00000003.ckpt") is None
    )


def test_where_the_best_cannot_be_saved_the_one_before_stays_the_best(tmp_path):
    callback = checkpoints_in(tmp_path, select=SELECT, every_steps=100)
    fit_on_a_disk_that_is_full_at_steps({4}, callback, max_steps=6)
    # Step 2 has 0.6, step 4 has 0.7 and is not saved.
    assert callback.best == pytest.approx(0.6) and saved(callback.best_path) == 2
    assert check_integrity(callback.best_path) is None and saved_step(callback.best_path) == 2


def test_a_best_that_was_damaged_is_said_and_replaced(tmp_path):
    first = checkpoints_in(tmp_path, monitor="val/clip_score", every_steps=2)
    fit(Scripted(validations=CURVE), [first], max_steps=4, val_every=2)
    state = tmp_path / "best.ckpt" / "state.pt"
    state.write_bytes(state.read_bytes()[:-1])
    resumed = checkpoints_in(tmp_path, monitor="val/clip_score", every_steps=100)
    with pytest.warns(UserWarning, match=r"best\.ckpt is damaged"):
        newest = tmp_path / "step-00000002.ckpt"
        fit(Scripted(validations={**CURVE, 4: {"clip_score": 0.1}}), [resumed], 4, val_every=2, ckpt_path=newest)
    assert saved(tmp_path / "best.ckpt") == 4
