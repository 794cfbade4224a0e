"""Runs that several effect tests start from, made once for all workers of a test session."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from capkit.cli import main


def made_once(factory: pytest.TempPathFactory, name: str, words: list[str]) -> Path:
    """The run folder of a command, from the first worker that asks; the others wait for it."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / name
    with FileLock(shared / f"{name}.lock"):
        if not (folder / "run" / "report.html").exists():
            folder.mkdir(exist_ok=True)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                assert main([*words, f"run_dir={folder / 'run'}"]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def run_once(tmp_path_factory) -> Callable[[str, list[str]], Path]:
    return lambda name, words: made_once(tmp_path_factory, name, words)


@pytest.fixture(scope="session")
def sceneworld_clip(run_once) -> Path:
    """The run folder of experiment=clip_pretrain_sceneworld, on one thread: a dual encoder for many tests."""
    judged = "evaluator=[retrieval,zero_shot_scenes,zero_shot_holdout,sts_scenes,composed_scenes]"
    words = ["experiment=clip_pretrain_sceneworld", "trainer=cpu", "trainer.devices=1", "val_every=400", judged]
    return run_once("sceneworld clip", words)
