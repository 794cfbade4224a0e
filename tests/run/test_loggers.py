import math
import warnings

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.run.folder import RunFolder
from capkit.run.metric_names import SAMPLES
from capkit.run.wandb_logger import WandbLogger


class Broken:
    def log(self, *args, **kwargs):
        raise ConnectionError("wandb is away")


def test_a_wandb_that_fails_warns_once_and_training_goes_on(tmp_path):
    logger = WandbLogger()
    logger.attach(RunFolder(tmp_path), {})
    logger._run = Broken()
    with pytest.warns(UserWarning, match="wandb is away"):
        logger.log_metrics({"x": 1.0}, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logger.log_metrics({"x": 1.0}, 2)
        logger.finish()


def test_an_offline_run_is_written_into_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    logger = WandbLogger(mode="offline")
    logger.attach(RunFolder(tmp_path / "run"), {"seed": 0})
    (tmp_path / "run").mkdir()
    logger.log_metrics({"train/loss": 1.0}, 1)
    row = {"key": "k", "caption": "a", "references": ["b"], "metadata": {}}
    logger.log_samples([row], [np.zeros((4, 4, 3), np.uint8)])
    logger.finish()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


class Kept:
    def __init__(self):
        self.logged = {}

    def log(self, numbers, step=None):
        self.logged |= numbers


def table_of(rows, tmp_path):
    logger = WandbLogger()
    logger.attach(RunFolder(tmp_path), {})
    logger._run = Kept()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a failure of the table is one
        logger.log_samples(rows, [np.zeros((4, 4, 3), np.uint8)] * len(rows))
    return logger._run.logged[SAMPLES]


ROW = {"key": "k", "caption": "a cat", "references": ["one cat", "the cat"], "metadata": {}}


def test_the_table_of_samples_has_captions_and_references(tmp_path):
    table = table_of([ROW], tmp_path)
    assert table.columns == ["key", "image", "references", "caption"]
    assert table.data[0][2:] == ["one cat\nthe cat", "a cat"]


def test_a_fine_tuned_captioner_has_columns_before_and_now_with_each_reward(tmp_path):
    first = {**ROW, "before": "cat", "rewards": {"cider": 1.5, "nli": math.nan}, "before_rewards": {"cider": 0.5}}
    second = {**ROW, "before": "dog", "rewards": {"cider": 2, "nli": 0.25}}
    table = table_of([first, second], tmp_path)
    assert table.columns == ["key", "image", "references", "before", "before: cider", "now", "now: cider", "now: nli"]
    assert [row[3:] for row in table.data] == [
        ["cat", 0.5, "a cat", 1.5, None],  # what could not be scored has no number
        ["dog", None, "a cat", 2.0, 0.25],
    ]


def test_a_table_that_cannot_be_made_stops_no_run(tmp_path):
    logger = WandbLogger()
    logger.attach(RunFolder(tmp_path), {})
    logger._run = Kept()
    with pytest.warns(UserWarning, match="wandb failed"):
        logger.log_samples([{"key": "k"}], [np.zeros((4, 4, 3), np.uint8)])


def test_a_wrong_mode_is_refused():
    with pytest.raises(UsageError, match="auto, online or offline"):
        WandbLogger(mode="on")
