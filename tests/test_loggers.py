import warnings

import pytest

from capkit.errors import UsageError
from capkit.loggers import WandbLogger
from capkit.run_folder import RunFolder


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
    import numpy as np

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    logger = WandbLogger(mode="offline")
    logger.attach(RunFolder(tmp_path / "run"), {"seed": 0})
    (tmp_path / "run").mkdir()
    logger.log_metrics({"train/loss": 1.0}, 1)
    row = {"key": "k", "caption": "a", "references": ["b"], "metadata": {}}
    logger.log_samples([row], [np.zeros((4, 4, 3), np.uint8)])
    logger.finish()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_a_wrong_mode_is_refused():
    with pytest.raises(UsageError, match="auto, online or offline"):
        WandbLogger(mode="on")
