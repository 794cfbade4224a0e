"""A run that several files of tests start from, trained once a process."""

import pytest
from tiny_fit_run import TINY, caches

from capkit.cli import main


@pytest.fixture(scope="session")
def tiny_fit(tmp_path_factory):
    """The folder of a tiny captioner's run, in `run`, which no test may change."""
    path = tmp_path_factory.mktemp("fit")
    assert main([*TINY, *caches(path), f"run_dir={path / 'run'}"]) == 0
    return path
