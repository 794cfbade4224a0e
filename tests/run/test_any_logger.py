"""Any of Lightning's loggers from the config: CSV and TensorBoard as shipped, and one of somebody else's."""

import csv

import numpy as np
import pytest
from lightning.pytorch.loggers.logger import Logger
from omegaconf import OmegaConf

from capkit.cli import main
from capkit.config.arguments import Command
from capkit.config.compose import compose_config
from capkit.run.folder import RunFolder
from capkit.run.loggers import build_loggers, finish_loggers

CONFIG = {"seed": 3, "model": {"width": 8}}
ROWS = [{"key": "k", "caption": "a", "references": ["b"], "metadata": {}}]


class Mine(Logger):
    """A logger of somebody else's, with what Lightning asks for and no more."""

    name, version = "mine", 0

    def __init__(self, word: str = "x") -> None:
        super().__init__()
        self.word, self.rows, self.config, self.ended = word, [], None, []

    def log_hyperparams(self, params, *args, **kwargs):
        self.config = params

    def log_metrics(self, metrics, step=None):
        assert not self.ended
        self.rows.append((step, dict(metrics)))

    def finalize(self, status):
        self.ended.append(status)


def log(group, folder):
    """What a run logs: a row in training, one of the end."""
    (logger,) = build_loggers(group, RunFolder(folder), CONFIG)
    logger.log_metrics({"train/loss": 1.5}, 1)
    finish_loggers([logger], {"test/cider": 0.5}, 2, ROWS, [np.zeros((2, 2, 3), np.uint8)])
    return logger


def test_a_logger_of_somebody_elses_gets_config_numbers_and_an_end(tmp_path):
    mine = log({"mine": {"_target_": f"{__name__}.Mine", "word": "y"}, "off": None}, tmp_path)
    assert mine.word == "y" and mine.config == CONFIG and mine.ended == ["success"]
    assert mine.rows == [(1, {"train/loss": 1.5}), (2, {"test/cider": 0.5})]


def group(name):
    return compose_config(Command([f"logger=[{name}]"])).config.logger


def test_the_table_of_numbers_lies_in_the_run_folder_once_for_each_start(tmp_path):
    for attempt in (0, 1):
        log(group("csv"), tmp_path)
        rows = list(csv.DictReader((tmp_path / f"csv/version_{attempt}/metrics.csv").open()))
        assert [(row["step"], row["train/loss"], row["test/cider"]) for row in rows] == [
            ("1", "1.5", ""),
            ("2", "", "0.5"),
        ]
    assert "width: 8" in (tmp_path / "csv/version_1/hparams.yaml").read_text()


def test_tensorboard_finds_every_number_of_all_starts(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        log(group("tensorboard"), tmp_path)
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"train/loss", "test/cider"} <= set(found.Tags()["scalars"])
    assert [(event.step, event.value) for event in found.Scalars("train/loss")] == [(1, 1.5)] * 2


def test_tensorboard_shows_the_samples_with_their_pictures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log(group("tensorboard"), tmp_path)
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert found.Tags()["images"] == ["samples/captions/k"]
    ((event),) = found.Tensors("samples/captions/k/text_summary")
    assert event.tensor_proto.string_val[0].decode() == "a\n\n- b" and event.step == 2


def test_another_save_dir_is_kept(tmp_path):
    settings = OmegaConf.merge(group("csv"), {"csv": {"save_dir": str(tmp_path / "elsewhere")}})
    log(settings, tmp_path / "run")
    assert (tmp_path / "elsewhere/csv/version_0/metrics.csv").exists() and not (tmp_path / "run").exists()


def test_a_missing_tensorboard_is_told_before_the_run(monkeypatch, capsys):
    monkeypatch.setattr("capkit.config.extras.Need.missing", lambda need: list(need.modules))
    assert main(["logger=[tensorboard]", "dry_run=true"]) == 2
    assert "pip install 'capkit[tensorboard]'" in capsys.readouterr().err
