"""`run_training`: which parts of a job are asked for, in which order, on a new, resumed, finished and dry run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

from omegaconf import OmegaConf

from capkit.data.datamodule import CaptionDataModule
from capkit.train import job as job_module
from capkit.train.job import Job, run_training
from capkit.train.session import Run
from capkit.train.train_module import TrainModule

OPENING = [
    "start_ranks", "build_parts", "open_data", "build_module", "checkpoint_extras", "text_encoder", "prompt_encoder",
    "attach", "print_header",
]  # fmt: skip
END = ["train", "evaluate", "samples", "finish", "write_report", "require_saved"]


class Recorded(Job[Any]):
    """Writes down which of its methods are called."""

    def __init__(self, called: list[str]) -> None:
        self.called = called

    def __getattribute__(self, name: str) -> Any:
        if name in vars(Job) and not name.startswith("_") and name not in ("next_tasks", "shown_split"):
            object.__getattribute__(self, "called").append(name)
        return object.__getattribute__(self, name)

    def build_parts(self, cfg):
        return {}

    def build_module(self, run):
        return Mock(TrainModule, model=None)

    def text_encoder(self, run, module):
        return None

    def initialize(self, run, module):
        pass

    def evaluate(self, run, module):
        return [{"key": str(number)} for number in range(30)]

    def write_report(self, run, module, rows, samples):
        assert len(rows) == 30 and len(samples) == 24


def phases(monkeypatch, *, resumed=False, done=False, **settings):
    """The calls that a run makes; lightning, data and disk are left out."""
    called: list[str] = []

    def noted(name, result=None):
        return lambda *_, **__: (called.append(name), result)[1]

    def open_run(cfg, build_parts, open_data):
        build_parts(cfg)
        open_data(Mock(CaptionDataModule))
        return Mock(
            Run, cfg=cfg, extras=SimpleNamespace(), attach=noted("attach"), is_done=lambda: done,
            require_saved=noted("require_saved"), resume=Path("step-00000001.ckpt") if resumed else None,
            folder=SimpleNamespace(path=Path(), metrics=lambda: {"test/cider": 1.0}),
            data=SimpleNamespace(image_reader=lambda split: lambda key: key), trainer=SimpleNamespace(precision="32"),
        )  # fmt: skip

    def finish(folder, trainer, samples, image, write, next_tasks, log_more):
        called.append("finish")
        write(samples)

    monkeypatch.setattr("capkit.train.session.start_ranks", noted("start_ranks", False))
    monkeypatch.setattr(job_module, "open_run", open_run)
    monkeypatch.setattr(job_module, "finish", finish)
    monkeypatch.setattr(job_module, "write_removed_regions", lambda *_: None)
    for name in ("checkpoint_extras", "print_header", "print_plan", "train"):
        monkeypatch.setattr(job_module, name, noted(name))
    numbers = run_training(OmegaConf.create({"dry_run": False, "controls": 4, **settings}), Recorded(called))
    return called, numbers


def test_a_new_run_sets_weights_and_measures_the_untrained_model_before_it_trains(monkeypatch):
    called, numbers = phases(monkeypatch)
    assert called == [*OPENING, "initialize", "prepare", "evaluate_untrained", *END]
    assert numbers == {"test/cider": 1.0}


def test_without_controls_the_untrained_model_is_not_measured(monkeypatch):
    assert phases(monkeypatch, controls=0)[0] == [*OPENING, "initialize", "prepare", *END]


def test_a_resumed_run_takes_its_weights_from_the_checkpoint_and_is_prepared_again(monkeypatch):
    assert phases(monkeypatch, resumed=True)[0] == [*OPENING, "prepare", *END]


def test_a_finished_run_gives_its_numbers_and_does_nothing(monkeypatch):
    assert phases(monkeypatch, resumed=True, done=True) == (OPENING, {"test/cider": 1.0})


def test_a_dry_run_ends_with_the_plan(monkeypatch):
    assert phases(monkeypatch, dry_run=True) == ([*OPENING, "print_plan"], {})
