"""Tests run on one torch thread: shared cores stall otherwise. The long files come first."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--studies", action="store_true", help="noisy effect tests over three seeds, and those of many minutes as well"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """An effect test that takes `seed` runs once for each."""
    if "seed" in metafunc.fixturenames and metafunc.definition.get_closest_marker("effect"):
        metafunc.parametrize("seed", _seeds(metafunc.config))


@pytest.fixture(scope="session")
def seeds(pytestconfig: pytest.Config) -> range:
    return _seeds(pytestconfig)


def _seeds(config: pytest.Config) -> range:
    return range(3 if config.getoption("studies") else 1)


SHARED_RUNS = ("sceneworld_clip", "run_once")  # tests/effects/conftest.py


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves studies out unless they are asked for, and orders files so that two workers end together: files with slow
    or effect tests come before all others.

    Of the files that start from one shared run, one begins, and the others come after the rest of the long ones: no
    worker waits while the run is made.
    """
    if not config.getoption("studies"):
        studies = [item for item in items if item.get_closest_marker("study")]
        config.hook.pytest_deselected(items=studies)
        items[:] = [item for item in items if item not in studies]
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(str(item.path), []).append(item)
    ranks, made = {}, set()
    for file, tests in files.items():
        shared = next((name for name in SHARED_RUNS if any(name in test.fixturenames for test in tests)), None)
        if not any(test.get_closest_marker(mark) for test in tests for mark in ("slow", "effect")):
            ranks[file] = 3
        elif shared is None:
            ranks[file] = 1
        else:
            ranks[file] = 2 if shared in made else 0
            made.add(shared)
    items.sort(key=lambda item: ranks[str(item.path)])
