"""Sweeps: Optuna's choices, a sweep that was interrupted, and the table of its runs. The runs are stand-ins."""

import csv
import json
import math
from pathlib import Path

import pytest

from capkit import cli
from capkit.config.sweeps import Swept, split_sweep
from capkit.errors import RunFailure, UsageError
from capkit.run.folder import RunFolder
from capkit.run.optuna_sweep import STUDY, Optuna, distribution
from capkit.run.sweep_table import note_given, sweep_rows, write_sweep_table

optuna = pytest.importorskip("optuna", reason="wants optuna: pip install 'capkit[sweeps]'")

SPACE = {"lr": ((1e-4, 1e-1), True), "kind": (("flat", "steep"), None)}


def space():
    (ends, is_log), (values, _) = SPACE.values()
    return {"lr": distribution(None, ends, is_log), "kind": distribution(list(values))}


def height(values):
    """Highest, 1, at lr 1e-2 of the steep kind; .5 at most of the flat one."""
    return (1.0 if values["kind"] == "steep" else 0.5) - abs(math.log10(values["lr"]) + 2)


def run_of(seen, fails=(), interrupts=()):
    def run_trial(values, folder):
        number = int(folder.name)
        seen.append((number, dict(values)))
        folder.mkdir(parents=True, exist_ok=True)
        if number in interrupts:
            raise KeyboardInterrupt
        if number in fails:
            raise RunFailure("the loss is no number")
        run = RunFolder(folder)
        run.append(1, {"val/cider": -9.0})
        run.append(2, {"val/cider": height(values)})

    return run_trial


def test_it_finds_what_is_best_by_the_last_value(tmp_path, capsys):
    seen = []
    Optuna(num_trials=30, seed=1).run(space(), run_of(seen), tmp_path)
    assert [number for number, _ in seen] == list(range(30))
    assert all(1e-4 <= values["lr"] <= 1e-1 for _, values in seen)
    found = [height(values) for _, values in seen]
    best = max(range(30), key=found.__getitem__)
    assert seen[best][1]["kind"] == "steep" and found[best] > 0.8  # of 1; a tenth of random choices reach it
    assert f"best: trial {best}, val/cider {found[best]:.4f}: " in capsys.readouterr().out


def test_minimizing_takes_the_lowest(tmp_path, capsys):
    seen = []
    Optuna(direction="minimize", num_trials=6, sampler="random").run(space(), run_of(seen), tmp_path)
    lowest = min(range(6), key=lambda number: height(seen[number][1]))
    assert f"best: trial {lowest}," in capsys.readouterr().out


def test_the_same_command_again_goes_on_with_the_run_that_was_interrupted(tmp_path):
    before, after = [], []
    with pytest.raises(KeyboardInterrupt):
        Optuna(num_trials=5).run(space(), run_of(before, interrupts=(2,)), tmp_path)
    Optuna(num_trials=5).run(space(), run_of(after), tmp_path)
    assert [number for number, _ in before] == [0, 1, 2] and [number for number, _ in after] == [2, 3, 4]
    assert after[0] == before[2]  # the same values, in the same folder
    chosen = [values["lr"] for _, values in [*before[:2], *after]]
    assert len(set(chosen)) == 5  # a resume does not draw again what was drawn
    longer = []
    Optuna(num_trials=6).run(space(), run_of(longer), tmp_path)
    assert [number for number, _ in longer] == [5]


def test_a_sweep_killed_while_values_were_drawn_gives_no_run_without_them(tmp_path):
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    Optuna(num_trials=1).run(space(), run_of([]), tmp_path)
    study = optuna.load_study(study_name="sweep", storage=JournalStorage(JournalFileBackend(str(tmp_path / STUDY))))
    study.ask().suggest_float("lr", 1e-4, 1e-1, log=True)  # and no kind
    seen = []
    Optuna(num_trials=3).run(space(), run_of(seen), tmp_path)
    assert [number for number, _ in seen] == [2] and set(seen[0][1]) == set(SPACE)


def test_a_run_that_fails_is_a_failed_trial_and_the_next_begins(tmp_path, capsys):
    seen = []
    Optuna(num_trials=3).run(space(), run_of(seen, fails=(0,)), tmp_path)
    assert [number for number, _ in seen] == [0, 1, 2]
    told = capsys.readouterr().out
    assert "trial 0 failed: the loss is no number" in told and "best: trial 0" not in told
    with pytest.raises(RunFailure, match="no trial of the sweep ended with a number"):
        Optuna(num_trials=1).run(space(), run_of([], fails=(0,)), tmp_path / "other")


def test_what_is_wrong_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"one of the test split: .* give val/cider"):
        Optuna(metric="test/cider")
    Optuna(num_trials=1).run(space(), run_of([]), tmp_path)
    with pytest.raises(UsageError, match="expected the sweep that this folder holds"):
        Optuna(num_trials=2).run({"lr": distribution(None, (0, 1))}, run_of([]), tmp_path)
    fallen, longer = Optuna(direction="minimize", num_trials=2), ["max_steps=9"]
    with pytest.raises(UsageError, match=r"\(direction: minimize in place of maximize\); give what it was"):
        fallen.run(space(), run_of([]), tmp_path)
    with pytest.raises(UsageError, match=r"another one \(fixed: max_steps=9 in place of nothing\)"):
        Optuna(num_trials=2).run(space(), run_of([]), tmp_path, longer)
    with pytest.raises(UsageError, match=r"val/loss: expected a number that is to grow.* sweeper.direction=minimize"):
        Optuna(metric="val/loss")
    with pytest.raises(UsageError, match=r"val/spice: expected a number that runs log, got none"):
        Optuna(metric="val/spice", num_trials=1).run(space(), run_of([]), tmp_path / "other")


def test_two_processes_do_not_share_a_sweep(tmp_path):
    def nested(values, folder):
        Optuna(num_trials=1).run(space(), run_of([]), tmp_path)

    with pytest.raises(UsageError, match="got another process's sweep"):
        Optuna(num_trials=1).run(space(), nested, tmp_path)


def test_a_command_is_taken_apart_into_what_is_fixed_and_what_is_swept():
    words = ["seed=3", "++model.width=32,64", "lr=tag(log,interval(1e-4,1e-2))", "n=int(interval(2,6))", "k=range(1,4)"]
    fixed, swept = split_sweep(words, [])
    assert fixed == ["seed=3"]
    assert swept == {
        "model.width": Swept("++", ["32", "64"]),
        "lr": Swept("", None, (1e-4, 1e-2), True),
        "n": Swept("", None, (2, 6)),
        "k": Swept("", ["1", "2", "3"]),
    }
    with pytest.raises(UsageError, match="expected a key with several values, got none"):
        split_sweep(["seed=3"], [])


def test_the_table_has_what_differs_and_every_number(tmp_path, capsys):
    for number, lr in (("0", "0.1"), ("10", "0.3"), ("2", "0.2")):
        note_given(tmp_path / number, ["seed=1", f"++optimizer.lr={lr}"])
        if number != "10":
            RunFolder(tmp_path / number).write_metrics({"test/cider": float(lr) * 2, "test/shuffled/cider": 0.0})
    (tmp_path / "notes").mkdir()
    rows = sweep_rows(tmp_path)
    assert [row["run"] for row in rows] == ["0", "2", "10"] and "seed" not in rows[0]
    write_sweep_table(tmp_path)
    with (tmp_path / "results.csv").open(newline="") as file:
        first, second, last = csv.DictReader(file)
    assert first == {"run": "0", "optimizer.lr": "0.1", "test/cider": "0.2", "test/shuffled/cider": "0.0"}
    assert second["test/cider"] == "0.4" and last["test/cider"] == "" and last["optimizer.lr"] == "0.3"
    assert "0.4000" in capsys.readouterr().out


def test_optuna_without_several_runs_is_refused(capsys):
    assert cli.main(["sweeper=optuna", "dry_run=true"]) == 2
    assert "sweeper=optuna chooses values for several runs, got one; add -m" in capsys.readouterr().err


@pytest.mark.integration
def test_trials_are_runs_that_the_command_line_composes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = ["debug=tiny", "data.train.count=16", "data.val.count=6", "data.test.count=6", "max_steps=2", "val_every=2"]
    tiny += ["model.width=32", "model.num_layers=1", "model.image_encoder.channels=[8,8]", "decoding.max_length=4"]
    tiny += ["model.image_encoder.blocks=[0,0]", "model.image_encoder.width=32", "trainer=cpu", "trainer.devices=1"]
    words = ["sweeper=optuna", "sweeper.num_trials=2", "sweeper.metric=val/loss", "sweeper.direction=minimize"]
    swept = ["optimizer.lr=tag(log,interval(1e-4,1e-2))", "objective.label_smoothing=0.0,0.1", "run_dir=a sweep"]
    assert cli.main(["-m", *tiny, *words, *swept]) == 0
    for number in ("0", "1"):
        folder = tmp_path / "a sweep" / number
        given = dict(one.lstrip("+").split("=") for one in json.loads((folder / "sweep.json").read_text())["overrides"])
        config = RunFolder(folder).config()
        assert config["optimizer"]["lr"] == float(given["optimizer.lr"])
        assert config["objective"]["label_smoothing"] == float(given["objective.label_smoothing"])
        assert Path(config["run_dir"]) == Path("a sweep", number)
    assert len((tmp_path / "a sweep/results.csv").read_text().splitlines()) == 3
