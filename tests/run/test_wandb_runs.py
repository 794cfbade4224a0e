"""Which wandb run a start belongs to, what is uploaded on request, retrieval grids, and the sweep that is shipped."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import wandb
import yaml

from capkit.config.arguments import parse
from capkit.config.check import compose_checked
from capkit.errors import UsageError
from capkit.reports.retrieval import Query
from capkit.run.folder import RunFolder
from capkit.run.metric_names import RETRIEVAL
from capkit.run.wandb_logger import STATE, SWEEP, WandbLogger, checkpoint_of
from capkit.tasks.fit_encoder import FitEncoder

SWEEP_FILE = Path(__file__).parents[2] / "launch" / "wandb_sweep.yaml"


class Run:
    def __init__(self):
        self.logged, self.artifacts, self.ended = {}, [], False

    def log(self, numbers, step=None):
        self.logged |= numbers

    def log_artifact(self, artifact, aliases):
        assert not self.ended
        self.artifacts.append((artifact, aliases))

    def finish(self):
        self.ended = True


@pytest.fixture
def started(monkeypatch):
    """Settings of each `wandb.init`."""
    settings = []
    monkeypatch.setattr(wandb, "init", lambda **given: settings.append(given) or Run())
    for name in (SWEEP, "WANDB_MODE", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return settings


def start(folder, **arguments):
    logger = WandbLogger(**arguments)
    logger.attach(RunFolder(folder), {"seed": 0})
    logger.log_metrics({"train/loss": 1.0}, 1)
    return logger


def test_online_every_start_goes_on_in_the_run_of_the_folder(started, tmp_path):
    for name in ("a", "a", "b"):
        (tmp_path / name).mkdir(exist_ok=True)
        start(tmp_path / name, mode="online", tags=["x"])
    first, again, other = started
    assert first["id"] == again["id"] != other["id"] and first["resume"] == again["resume"] == "allow"
    assert json.loads((tmp_path / "a" / STATE).read_text()) == {"id": first["id"]}  # what wandb_sync goes on with
    assert (first["name"], first["group"], other["group"], first["tags"]) == ("a", "a", "b", ["x"])


def test_offline_each_start_is_a_run_of_its_own_in_the_group_that_is_given(started, tmp_path):
    start(tmp_path, mode="offline", group="seeds")
    assert "id" not in started[0] and "resume" not in started[0] and started[0]["group"] == "seeds"
    assert not (tmp_path / STATE).exists()


def test_in_a_sweep_the_agent_says_which_run_it_is(started, tmp_path, monkeypatch):
    monkeypatch.setenv(SWEEP, "abc")
    start(tmp_path, mode="online")
    assert not {"id", "project", "entity", "resume"} & started[0].keys() and started[0]["group"] is None
    start(tmp_path, mode="online", group="widths")  # which the agent does not give
    assert started[1]["group"] == "widths"


def test_the_model_is_uploaded_on_request_before_the_run_ends(started, tmp_path):
    checkpoints = tmp_path / "my run" / "checkpoints"
    for name in ("step-00000009.ckpt", "step-00000010.ckpt", "best-a.ckpt"):
        (checkpoints / name).mkdir(parents=True)
        (checkpoints / name / "weights").write_text(name)
    (checkpoints / "best.ckpt").symlink_to("best-a.ckpt")
    RunFolder(tmp_path / "my run").write_metrics({"test/cider": 0.5})
    for model, expected in (("last", "step-00000010.ckpt"), ("best", "best-a.ckpt")):
        logger = start(tmp_path / "my run", mode="offline", model=model)
        run = logger._run
        logger.finish()
        ((artifact, aliases),) = run.artifacts
        assert run.ended and aliases == [model] and artifact.name == "my-run-model" and artifact.type == "model"
        assert list(artifact.manifest.entries) == [f"{expected}/weights"]
        assert artifact.metadata == {"test/cider": 0.5, "checkpoint": expected}
    logger = start(tmp_path / "my run", mode="offline")
    run = logger._run
    logger.finish()
    assert run.ended and not run.artifacts


def test_a_run_without_checkpoints_has_no_model_and_says_so(started, tmp_path):
    logger = start(tmp_path, mode="offline", model="best")
    run = logger._run
    with pytest.warns(UserWarning, match="has no checkpoint to upload"):
        logger.finish()
    assert run.ended and checkpoint_of(tmp_path, "last") is None
    with pytest.raises(UsageError, match="none, last or best"):
        WandbLogger(model="first")


def test_a_retrieval_grid_has_a_row_a_caption_its_own_picture_and_the_nearest(started, tmp_path):
    logger = start(tmp_path, mode="offline")
    images = {key: np.full((4, 4, 3), place, np.uint8) for place, key in enumerate("abc")}
    logger.log_retrieval([{"text": "a dog", "nearest": ["b", "a"], "own": "c", "place": 7}], images)
    table = logger._run.logged[RETRIEVAL]
    assert table.columns == ["caption", "place", "own", "nearest 1", "nearest 2"]
    ((text, place, *pictures),) = table.data
    assert (text, place) == ("a dog", 7) and [np.asarray(one.image)[0, 0, 0] for one in pictures] == [2, 1, 0]


@pytest.mark.unchecked
def test_a_dual_encoders_job_sends_its_queries_to_loggers_that_show_them(started, tmp_path):
    job = FitEncoder()
    job.queries = [Query("a dog", ["b", "a"], "c", 7)]
    logger, drawn = start(tmp_path, mode="offline"), np.zeros((4, 4, 3), np.uint8)
    data = SimpleNamespace(image_reader=lambda split: {key: drawn for key in "abc"}.get)
    job.log_more(SimpleNamespace(data=data, trainer=SimpleNamespace(loggers=[object(), logger])))
    assert logger._run.logged[RETRIEVAL].data[0][:2] == ["a dog", 7]


def test_the_sweep_that_is_shipped_becomes_commands_that_are_accepted():
    """By wandb's own reader, and the words that its agent makes of the values."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args, load_sweep_config

    config = load_sweep_config(str(SWEEP_FILE))
    assert config == yaml.safe_load(SWEEP_FILE.read_text()) and config["metric"]["name"].startswith("val/")
    for end in ("first", "last"):
        values = {
            name: {"value": given["values"][0 if end == "first" else -1] if "values" in given else given["min"]}
            for name, given in config["parameters"].items()
        }
        words = create_sweep_command_args({"args": values})["args_no_hyphens"]
        command = create_sweep_command(list(config["command"]))
        at = command.index("${args_no_hyphens}")
        given = [*command[:at], *words, *command[at + 1 :]]
        composed = compose_checked(parse(given[given.index("${program}") + 1 :]))
        assert composed.config.optimizer.lr == 0.0001 and composed.config.logger.wandb is not None
        assert composed.config.data.batch_size == values["data.batch_size"]["value"]
    assert "seed" not in config["parameters"]  # a search would choose the luckiest
