"""Tests run on one torch thread: shared cores stall otherwise. tiers.py says which run, cpu_budget.py how long."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

torch.set_num_threads(1)

pytest_plugins = ["tiers", "cpu_budget"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """An effect test that takes `seed` runs once for each."""
    if "seed" in metafunc.fixturenames and metafunc.definition.get_closest_marker("effect"):
        metafunc.parametrize("seed", _seeds(metafunc.config))


@pytest.fixture(scope="session")
def seeds(pytestconfig: pytest.Config) -> range:
    return _seeds(pytestconfig)


def _seeds(config: pytest.Config) -> range:
    return range(3 if config.getoption("studies") else 1)
