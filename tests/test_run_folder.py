import json

import pytest

from capkit.errors import UsageError
from capkit.run_folder import RunFolder, default_run_dir, flatten

CONFIG = {"seed": 0, "data": {"batch_size": 4, "num_workers": 0}, "betas": (0.9, 0.99), "run_dir": "a"}


def test_the_same_config_opens_a_folder_again_as_the_next_attempt(tmp_path):
    first = RunFolder(tmp_path / "run")
    first.open(CONFIG)
    first.append(1, {"train/loss": 2.0})
    second = RunFolder(tmp_path / "run")
    second.open({**CONFIG, "run_dir": "b", "data": {"batch_size": 4, "num_workers": 2}})
    assert (first.attempt, second.attempt) == (1, 2)


def test_a_changed_config_is_refused_with_the_keys_and_leaves_the_folder_as_it_was(tmp_path):
    RunFolder(tmp_path).open(CONFIG)
    before = (tmp_path / "config.yaml").read_text()
    with pytest.raises(UsageError, match=r"data\.batch_size: 4 -> 8") as error:
        RunFolder(tmp_path).open({**CONFIG, "data": {"batch_size": 8, "num_workers": 0}, "extra": 1})
    assert "extra: '(absent)' -> 1" in str(error.value) and "num_workers" not in str(error.value)
    assert (tmp_path / "config.yaml").read_text() == before


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
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert default_run_dir("x").name == "x-slurm-17"
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="give run_dir=PATH"):
        default_run_dir("x")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job7")
    assert default_run_dir("x").name == "x-job7"


def test_a_run_dir_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="run_dir must be a writable folder"):
        RunFolder(tmp_path / "file" / "run").open(CONFIG)
