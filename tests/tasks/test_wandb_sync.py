"""task=wandb_sync: what several attempts recorded becomes one wandb run, however often it is sent."""

import json

import pytest
import wandb

from capkit.cli import main
from capkit.run.folder import RunFolder
from capkit.run.metric_names import SAMPLES
from capkit.tasks.wandb_sync import STATE, steps_of


class Server:
    """Keeps what is sent to each run, like wandb: steps may only grow."""

    def __init__(self):
        self.runs, self.configs = {}, {}

    def init(self, **settings):
        self.settings = settings
        self.configs[settings["id"]] = settings["config"]
        return Run(self.runs.setdefault(settings["id"], {}))


class Run:
    dir = "none"

    def __init__(self, steps):
        self.steps, self.summary = steps, {}
        self.step = max(steps, default=-1) + 1

    def log(self, numbers, step=None):
        if step is None:
            step = max(self.steps)
        assert step >= max(self.steps, default=0)
        self.steps.setdefault(step, {}).update(numbers)

    def finish(self):
        pass


@pytest.fixture
def server(monkeypatch):
    server = Server()
    monkeypatch.setattr(wandb, "init", server.init)
    return server


@pytest.fixture
def run(tmp_path):
    """A run that was killed after step 3 and went on from step 2."""
    folder = RunFolder(tmp_path / "run")
    folder.open({"seed": 7})
    for step in (1, 2, 3):
        folder.append(step, {"train/loss": float(step)})
    folder.append(2, {"val/cider": 0.2})
    folder.open({"seed": 7})
    assert folder.attempt == 2
    folder.append(2, {"resumed_from": 2})
    folder.append(3, {"train/loss": 3.5})
    folder.write_metrics({"test/cider": 0.9})
    rows = [{"image_id": "a", "caption": "a cat"}, {"image_id": "b", "caption": "a dog"}]
    (folder.predictions / "test.json").write_text(json.dumps(rows))
    notes = {"annotations": [{"image_id": "a", "caption": text} for text in ("one cat", "the cat")]}
    (folder.predictions / "test_references.json").write_text(json.dumps(notes))
    return folder


def sync(run, mode="online"):
    return main(["wandb_sync", f"run_dir={run.path}", f"mode={mode}"])


def test_superseded_rows_stay_out_and_steps_come_once_in_order(run):
    assert list(steps_of(run)) == [
        (1, {"train/loss": 1.0}),
        (2, {"train/loss": 2.0, "val/cider": 0.2}),
        (3, {"train/loss": 3.5, "test/cider": 0.9}),
    ]


def test_all_attempts_become_one_run_with_config_and_captions(run, server):
    assert sync(run) == 0
    (steps,) = server.runs.values()
    table = steps[3].pop(SAMPLES)
    assert list(steps.items()) == list(steps_of(run))
    assert list(server.configs.values()) == [{"seed": 7}]
    assert table.data == [["a", "a cat", "one cat\nthe cat"], ["b", "a dog", ""]]


def test_captions_without_references_are_sent_alone(run, server):
    (run.predictions / "test_references.json").unlink()
    assert sync(run) == 0
    (steps,) = server.runs.values()
    assert steps[3][SAMPLES].data == [["a", "a cat", ""], ["b", "a dog", ""]]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("test.json", "[{}]", "test.json item 0: no 'image_id'; it has nothing; evaluate the run again"),
        ("test_references.json", "[]", "expected an object, got a list []; evaluate the run again"),
        ("test_references.json", '{"annotations": [{"image_id": 1}]}', "it has 'image_id'; evaluate the run again"),
    ],
)
def test_damaged_captions_are_told_before_anything_is_sent(run, server, capsys, name, content, told):
    (run.predictions / name).write_text(content)
    assert sync(run) == 2
    assert told in capsys.readouterr().err and not server.runs


def test_a_second_call_adds_to_the_same_run_what_is_new(run, server):
    assert sync(run) == 0 and sync(run) == 0
    run.append(4, {"train/loss": 4.0})
    assert sync(run) == 0
    (steps,) = server.runs.values()
    assert list(steps) == [1, 2, 3, 4]
    assert server.settings["resume"] == "allow"


def test_offline_each_call_writes_the_whole_run_in_place_of_the_last(run, capsys):
    folders = []
    for _ in range(2):
        assert sync(run, "offline") == 0
        folders += list((run.path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and list(folders[1].glob("*.wandb"))
    assert not folders[0].exists() or folders[0] == folders[1]  # both within a second, which names them
    assert json.loads((run.path / STATE).read_text())["id"] in folders[1].name
    assert f"wandb sync {folders[1]}" in capsys.readouterr().out


def test_a_wandb_that_does_not_answer_is_told_in_one_line(run, monkeypatch, capsys):
    def away(**settings):
        raise wandb.errors.CommError("no route to host")

    monkeypatch.setattr(wandb, "init", away)
    assert sync(run) == 1
    assert "error: wandb failed (no route to host); metrics.jsonl is intact" in capsys.readouterr().err


def test_a_folder_without_numbers_is_refused(tmp_path, capsys):
    assert main(["wandb_sync", f"run_dir={tmp_path}"]) == 2
    assert "a folder with a metrics.jsonl" in capsys.readouterr().err
