"""What several files of tests start from: a tiny run, trained once a process, and a folder to work in."""

import pytest
from tiny_fit_run import TINY, caches

from capkit.cli import main


@pytest.fixture(scope="session")
def tiny_fit(tmp_path_factory):
    """The folder of a tiny captioner's run, in `run`, which no test may change."""
    path = tmp_path_factory.mktemp("fit")
    assert main([*TINY, *caches(path), f"run_dir={path / 'run'}"]) == 0
    return path


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder of its own to work in, as the only process."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path
