"""Tests run on one torch thread: shared cores stall otherwise.

tiers.py says which run, cpu_budget.py how long they take, measured.py what they measured.
"""

import os
from collections.abc import Generator
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jaxtyping
import pytest
import torch

torch.set_num_threads(1)

pytest_plugins = ["tiers", "cpu_budget", "measured"]

UNCHECKED = ("effect", "study", "unchecked")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Switches the checks of shapes and types off for items of many small calls, which they slow down several times."""
    jaxtyping.config.update("jaxtyping_disable", any(item.get_closest_marker(mark) for mark in UNCHECKED))
    try:
        return (yield)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """An effect test that takes `seed`, or starts from a run of one, runs once for each; its item is named by it."""
    if "seed" in metafunc.fixturenames and metafunc.definition.get_closest_marker("effect"):
        metafunc.parametrize("seed", _seeds(metafunc.config), ids="seed{}".format, scope="session")


@pytest.fixture(scope="session")
def seeds(pytestconfig: pytest.Config) -> range:
    return _seeds(pytestconfig)


def _seeds(config: pytest.Config) -> range:
    return range(3 if config.getoption("studies") else 1)
