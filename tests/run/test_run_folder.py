import errno
import json
import os
import re
import resource

import pytest
import yaml

from capkit.config.run_config import read_run_config
from capkit.errors import UsageError
from capkit.run.about import read_starts
from capkit.run.changes import flatten, made_longer, refused_changes
from capkit.run.folder import RunFolder, default_run_dir
from capkit.utils.files import output_file, write_atomically

CONFIG = {"seed": 0, "data": {"batch_size": 4, "num_workers": 0}, "betas": (0.9, 0.99), "run_dir": "a"}


def test_the_same_config_opens_a_folder_again_as_the_next_attempt(tmp_path):
    first = RunFolder(tmp_path / "run")
    first.open(CONFIG)
    first.append(1, {"train/loss": 2.0})
    second = RunFolder(tmp_path / "run")
    elsewhere = {"run_dir": "b", "trainer": {"devices": 2, "strategy": {"stage": 2}}}
    second.open({**CONFIG, **elsewhere, "data": {"batch_size": 4, "num_workers": 2}})
    assert (first.attempt, second.attempt) == (1, 2)


def test_a_changed_config_is_refused_with_the_keys_and_leaves_the_folder_as_it_was(tmp_path):
    RunFolder(tmp_path).open(CONFIG)
    before = (tmp_path / "config.yaml").read_text()
    with pytest.raises(UsageError, match=r"data\.batch_size: 4 -> 8") as error:
        RunFolder(tmp_path).open({**CONFIG, "data": {"batch_size": 8, "num_workers": 0}, "extra": 1})
    assert "extra: '(absent)' -> 1" in str(error.value) and "num_workers" not in str(error.value)
    assert (tmp_path / "config.yaml").read_text() == before


MOVED = {
    "trainer": {"devices": 8, "precision": "bf16-mixed"},
    "logger": {"wandb": {"mode": "offline"}},
    "callback": {"checkpoints": {"every_minutes": 1, "monitor": "val/cider"}, "guard": None},
    "data": {"batch_size": 4, "num_workers": 2, "eval_batch_size": 8, "train": {"cache_dir": "/scratch"}},
    "micro_batch_size": 2,
    "torch_threads": 4,
    "max_steps": 40,
}


def of_steps(folder, max_steps=20, **more):
    """A run that made a step."""
    folder.open({**CONFIG, "max_steps": max_steps, **more}, trains=True)
    folder.append(1, {"train/loss": 2.0})


def test_a_run_may_be_made_longer_and_moved(tmp_path):
    of_steps(RunFolder(tmp_path))
    again = RunFolder(tmp_path)
    again.open({**CONFIG, **MOVED}, trains=True)
    again.go_on()
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["max_steps"] == 40
    assert list(made_longer({"max_steps": 1800, "max_epochs": None}, {"max_steps": 3600})) == [
        "max_steps: 1,800 -> 3,600"
    ]


def test_a_longer_run_is_recorded_once_it_goes_on(tmp_path):
    """Until then its checkpoint may be refused, and the run must be what it was."""
    first = RunFolder(tmp_path)
    of_steps(first)
    first.report.write_text("numbers")
    files = (first.config_file, first.path / "about.json", first.report, first.metrics_log)
    before = [file.read_bytes() for file in files]
    again = RunFolder(tmp_path)
    again.open({**CONFIG, **MOVED}, trains=True)
    assert again.attempt == 2 and [file.read_bytes() for file in files] == before
    again.go_on()
    assert not again.report.exists() and again.config()["max_steps"] == 40
    assert [start["attempt"] for start in read_starts(tmp_path)] == [1, 2]
    again.go_on()
    assert [start["attempt"] for start in read_starts(tmp_path)] == [1, 2]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_steps": 10}, "max_steps: 20 -> 10 (may only grow)"),
        ({"max_steps": None, "max_epochs": 3}, "max_steps: 20 -> None (may only grow)"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"betas": [0.9, 0.98]}, "betas.1: 0.99 -> 0.98"),
    ],
)
def test_a_run_that_made_a_step_keeps_what_its_numbers_depend_on(tmp_path, changes, told):
    of_steps(RunFolder(tmp_path))
    with pytest.raises(UsageError, match=re.escape(f"  {told}\n")):
        RunFolder(tmp_path).check({**CONFIG, "max_steps": 20, **changes}, trains=True)


def test_a_start_without_a_step_does_not_hold_its_run_to_its_config(tmp_path):
    folder = RunFolder(tmp_path)
    folder.open(CONFIG, trains=True)
    folder.append(0, {"val/loss": 2.0})
    folder.write_metrics({"test/untrained/cider": 0.1})
    folder.write_rows("initial", [{"key": "a"}])
    (folder.predictions / "test_untrained.json").write_text("[]")
    (folder.predictions / "notes.txt").write_text("a user's own")
    again = RunFolder(tmp_path)
    again.open({**CONFIG, "seed": 1}, trains=True)
    assert (again.rows(), again.metrics(), again.read_rows("initial")) == ([], {}, [])
    assert [file.name for file in again.predictions.iterdir()] == ["notes.txt"]


def test_a_group_without_parts_is_no_change_from_a_config_that_has_no_such_group():
    assert refused_changes({"lr": 1}, {"lr": 1, "step": {}}) == []
    removed = refused_changes({"lr": 1, "step": {"cut": {"n": 1}}}, {"lr": 1, "step": {}})
    assert removed == ["step.cut.n: 1 -> '(absent)'"]


def test_a_run_that_too_many_broken_pictures_stopped_goes_on_with_a_larger_budget():
    assert refused_changes({"data": {"max_skipped": 0.05}}, {"data": {"max_skipped": 0.2}}) == []


@pytest.mark.parametrize("left", ["step-00000001.ckpt", "best.ckpt"])
def test_a_checkpoint_shows_that_a_step_was_made(tmp_path, left):
    folder = RunFolder(tmp_path)
    folder.open(CONFIG, trains=True)
    (folder.checkpoints / left).mkdir()
    with pytest.raises(UsageError, match="seed: 0 -> 1"):
        RunFolder(tmp_path).open({**CONFIG, "seed": 1}, trains=True)


def test_an_evaluation_makes_no_steps_and_keeps_its_config(tmp_path):
    RunFolder(tmp_path).open({"ckpt": "a"})
    with pytest.raises(UsageError, match="ckpt: 'a' -> 'b'"):
        RunFolder(tmp_path).open({"ckpt": "b"})


def test_rows_beyond_a_resumed_step_are_superseded(tmp_path):
    folder = RunFolder(tmp_path)
    folder.open(CONFIG)
    for step in (10, 20, 30):
        folder.append(step, {"x": 1.0})
    folder.attempt = 2
    folder.append(20, {"resumed_from": 20})
    folder.append(30, {"x": 2.0})
    assert [(row["step"], row["x"]) for row in folder.current_rows()] == [(10, 1.0), (20, 1.0), (30, 2.0)]
    assert len(folder.rows()) == 5


def test_a_row_that_a_later_attempt_wrote_again_is_superseded(tmp_path):
    folder = RunFolder(tmp_path)
    folder.open(CONFIG)
    folder.append(0, {"val/x": 1.0})
    folder.append(20, {"x": 1.0})
    folder.append(20, {"val/x": 1.0})
    folder.attempt = 2
    folder.append(20, {"resumed_from": 20})
    folder.append(20, {"val/x": 2.0})
    assert [(row.get("x"), row.get("val/x")) for row in folder.current_rows()] == [
        (None, 1.0),
        (1.0, None),
        (None, 2.0),
    ]
    folder.attempt = 3  # begins anew
    folder.append(0, {"val/x": 3.0})
    folder.append(0, {"resumed_from": 0})
    assert [(row["step"], row["val/x"]) for row in folder.current_rows()] == [(0, 3.0)]


def test_a_row_cut_off_by_a_kill_is_left_out_and_spoils_no_other(tmp_path):
    folder = RunFolder(tmp_path)
    folder.open(CONFIG)
    folder.append(1, {"x": 1.0})
    with folder.metrics_log.open("a") as file:
        file.write('{"step": 2, "att')
    again = RunFolder(tmp_path)
    again.open(CONFIG)
    again.append(2, {"x": 2.0})
    assert [row["step"] for row in again.rows()] == [1, 2]


def test_final_numbers_are_added_to_those_that_stand(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_metrics({"test/cider": 1.0})
    folder.write_metrics({"train/seconds": 3.0})
    assert json.loads(folder.metrics_file.read_text()) == {"test/cider": 1.0, "train/seconds": 3.0}


def test_flatten_names_nested_values_by_dotted_keys():
    assert flatten({"a": {"b": [1, {"c": 2}]}, "d": {}}) == {"a.b.0": 1, "a.b.1.c": 2, "d": {}}


def test_ranks_of_one_slurm_job_share_a_folder_and_nameless_ranks_are_refused(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert default_run_dir("x").name == "x-slurm-17"
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="give run_dir=PATH"):
        default_run_dir("x")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job7")
    assert default_run_dir("x").name == "x-job7"


def test_a_run_dir_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="expected a writable folder"):
        RunFolder(tmp_path / "file" / "run").open(CONFIG)


def test_rows_that_the_disk_does_not_take_wait_and_none_is_cut(tmp_path):
    folder = RunFolder(tmp_path)
    folder.append(1, {"loss": 1.0})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = folder.metrics_log.stat().st_size + 10  # room for a part of the next row
    with pytest.warns(UserWarning, match="cannot write to .*File too large.*kept in memory") as told:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            for step in (2, 3):
                folder.append(step, {"loss": 1.0 / step})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(told) == 1 and folder.metrics_log.read_text().count("\n") == 1
    folder.append(4, {"loss": 0.25})
    assert [row["step"] for row in folder.rows()] == [1, 2, 3, 4]


def test_rows_that_waited_are_written_with_the_final_numbers(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    with monkeypatch.context() as patched, pytest.warns(UserWarning, match="Permission denied"):
        patched.setattr(os, "open", denied)
        folder.append(1, {"loss": 1.0})
    folder.write_metrics({"test/cider": 1.0})
    assert [row["step"] for row in folder.rows()] == [1]


def denied(*args):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_file_that_cannot_be_replaced_stays_and_no_half_of_the_new_one_is_left(tmp_path, monkeypatch):
    write_atomically(tmp_path / "numbers.json", "old")
    monkeypatch.setattr(os, "fsync", denied)
    with pytest.raises(PermissionError):
        write_atomically(tmp_path / "numbers.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.json"]
    assert (tmp_path / "numbers.json").read_text() == "old"


OPTIMIZER = {"optimizer": {"_target_": "capkit.optim.optimizers.AdamW", "lr": 0.1}}


def test_the_recorded_config_holds_the_defaults_that_the_command_left_unsaid(tmp_path):
    RunFolder(tmp_path).open(OPTIMIZER)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["optimizer"] == {
        "_target_": "capkit.optim.optimizers.AdamW", "lr": 0.1,
        "weight_decay": 0.01, "betas": [0.9, 0.999], "eps": 1e-8,
        "clip_norm": 1.0, "lr_multipliers": None,
    }  # fmt: skip


def test_a_record_without_defaults_is_the_same_run_and_a_changed_default_is_another(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(OPTIMIZER))
    RunFolder(tmp_path).open(OPTIMIZER)
    written = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(written.replace("weight_decay: 0.01", "weight_decay: 0.05"))
    with pytest.raises(UsageError, match=r"optimizer\.weight_decay: 0\.05 -> 0\.01"):
        RunFolder(tmp_path).open(OPTIMIZER)


ROW = b'{"step": 1, "attempt": 1, "time": 3.5, "train/loss": 2.0}\n'


@pytest.mark.parametrize(
    "line",
    [b"[1, 2]", b"7", b"null", b'"text"', b"\xff\xfe{", b'{"step": 2, "x": "\xe9"}', b"garbage", b"{}", b'{"x": 1.0}',
     b'{"step": "2"}', b'{"step": -1}', b'{"step": 2, "attempt": []}', b'{"step": 2, "resumed_from": 1.5}',
     b'{"step": 2, "x": "high"}', b'{"step": 2 "x": 1}', b"[" * 100_000, b'{"step": ' + b"9" * 5000 + b"}"],
    ids=lambda line: str(line[:30]),
)  # fmt: skip
def test_a_line_of_metrics_that_is_no_row_is_told_with_its_number_before_anything_is_changed(line, tmp_path):
    folder = RunFolder(tmp_path)
    folder.open(CONFIG)
    folder.metrics_log.write_bytes(ROW + line + b"\n" + ROW)
    for read in (folder.rows, folder.current_rows, lambda: RunFolder(tmp_path).open(CONFIG)):
        with pytest.raises(UsageError, match=r"metrics\.jsonl line 2: expected a row .*; delete the line"):
            read()


@pytest.mark.parametrize("left", [b"", b"\0" * 500, b'\0\0{"st', b'{"step": 2, "attempt": 1, "x": 1', b"{"])
def test_what_a_kill_or_a_power_cut_leaves_of_a_row_is_passed_over(left, tmp_path):
    folder = RunFolder(tmp_path)
    folder.metrics_log.write_bytes(ROW + left + b"\n" + ROW)
    assert len(folder.rows()) == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            b'seed: 0\ndata: {batch_size: 4\nname: "x',
            r"config\.yaml line 3: expected the config of a run, got invalid Y",
        ),
        (b"x: !!python/object/apply:os.system [false]\n", r"config\.yaml line 1: .*could not determine a constructor"),
        (b"seed: 0\n\x80\x81", r"config\.yaml: .*invalid start byte"),
        (b"\x89PNG\x00\x01", r"config\.yaml: .*invalid YAML"),
        (b"", r"config\.yaml: .*got an empty file"),
        (b"- 1\n", r"config\.yaml: .*got list '\[1\]'"),
        (b"see", r"config\.yaml: .*got str 'see'"),
        (b"seed: 2024-13-45\n", r"config\.yaml: .*month must be in 1\.\.12"),
        (b"[" * 5000, r"config\.yaml: .*nested too deep"),
    ],
)
def test_a_config_that_cannot_be_read_is_told_with_its_line_and_how_to_go_on(content, told, tmp_path):
    folder = RunFolder(tmp_path)
    folder.append(1, {"x": 1.0})
    folder.config_file.write_bytes(content)
    with pytest.raises(UsageError, match=told + r".*; restore .*config\.yaml, or delete it"):
        RunFolder(tmp_path).open(CONFIG)
    with pytest.raises(UsageError, match=told + r".*; restore it, or give a checkpoint of the run"):
        read_run_config(tmp_path)
    folder.config_file.unlink()
    again = RunFolder(tmp_path)
    again.open(CONFIG)
    assert again.attempt == 2 and again.config()["seed"] == 0


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"x": "high"}', b'{"x": 1, "x": 2}'])
def test_final_numbers_that_cannot_be_read_are_told_at_the_start(content, tmp_path):
    folder = RunFolder(tmp_path)
    folder.metrics_file.write_bytes(content)
    with pytest.raises(UsageError, match=r"metrics\.json.*delete it and report\.html beside it"):
        folder.open(CONFIG)


@pytest.mark.parametrize("content", [b"[1]\n", b"\xff\n", b"{\n"])
def test_rows_kept_for_a_later_attempt_that_cannot_be_read_are_told_with_the_line(content, tmp_path):
    (tmp_path / "initial.jsonl").write_bytes(b"{}\n" + content)
    with pytest.raises(UsageError, match=r"initial\.jsonl line 2"):
        RunFolder(tmp_path).read_rows("initial")


def test_an_output_is_a_new_file_or_a_regular_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "old.jsonl").touch()
    assert output_file(tmp_path / "old.jsonl") and output_file(tmp_path / "new" / "x.jsonl")
    for path in ("/dev/full", "/dev/null", tmp_path / "pipe", tmp_path):
        with pytest.raises(UsageError, match="expected a new file or a regular one"):
            output_file(path)
    with pytest.raises(UsageError, match=r"old\.jsonl is not a folder"):
        output_file(tmp_path / "old.jsonl" / "x.jsonl")


def test_an_output_on_a_disk_that_takes_nothing_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as on a read-only disk, for root too
    with pytest.raises(UsageError, match=r"out=.* cannot be written to; give permission, or another out=FILE"):
        output_file(tmp_path / "x.jsonl")
