"""Which items a session runs, in which order, and which of them one worker keeps together."""

import os
from pathlib import Path

import pytest
from tiers import GROUPS, SHARED_RUNS, group_of

pytest_plugins = ["pytester"]

MARKS = "[pytest]\nmarkers =\n    integration: tier 1\n    effect: tier 1\n    nightly: tier 2\n    study: tier 2\n"
FILE = """
import pytest

def test_plain(): pass

@pytest.mark.integration
def test_run(): pass

@pytest.mark.effect
@pytest.mark.nightly
def test_long(): pass

@pytest.mark.effect
@pytest.mark.study
def test_study(): pass
"""


@pytest.fixture
def run(pytester):
    """Runs test files in a session of its own, with this suite's plugin for tiers; the items that passed, in order."""

    def run(*words, **files):
        pytester.makefile(".ini", pytest=MARKS)
        pytester.makepyfile(**(files or {"test_of_tiers": FILE}))
        passed, _, _ = pytester.inline_run("-p", "tiers", "-p", "no:hypothesispytest", *words).listoutcomes()
        return [report.nodeid.split("::")[1] for report in passed]

    return run


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["plain"]),
        (["."], ["plain"]),
        (["--tier", "0"], ["plain"]),
        (["--tier", "1"], ["plain", "run"]),
        (["--tier", "2"], ["plain", "run", "long"]),
        (["--tier", "2", "--studies"], ["plain", "run", "long", "study"]),
        (["-m", "integration"], ["run"]),
        (["-m", "study", "--studies"], ["study"]),
        (["test_of_tiers.py"], ["plain", "run", "long"]),
        (["test_of_tiers.py::test_run"], ["run"]),
        (["test_of_tiers.py", "--tier", "0"], ["plain"]),
    ],
)
def test_folders_run_tier_0_and_what_is_named_or_chosen_by_a_mark_runs(run, words, names):
    assert run(*words) == [f"test_{name}" for name in names]


def test_groups_with_marked_items_come_first(run):
    assert run("--tier", "1", test_a="def test_quick(): pass", test_b=FILE) == ["test_plain", "test_run", "test_quick"]


def test_items_of_a_file_or_of_files_with_one_shared_run_are_one_group():
    assert group_of("tests/text/test_porter.py::test_a[x::y]") == "test_porter"
    assert (
        group_of("tests/effects/test_clip.py::test_a")
        == group_of("tests/effects/test_encoder_evaluators.py::test_b")
        == "clip"
    )
    effects = Path(__file__).parent / "effects"
    shared = {path.stem for path in effects.glob("test_*.py") if any(name in path.read_text() for name in SHARED_RUNS)}
    assert shared == GROUPS.keys()


@pytest.mark.integration
def test_one_worker_runs_a_group(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # hypothesis alone takes longer to import than this test
    pytester.makeconftest('pytest_plugins = ["tiers"]')
    body = "import pytest\n\n@pytest.mark.parametrize('n', range(20))\ndef test_it(n): pass\n"
    pytester.makepyfile(test_first=body, test_second=body)
    out = pytester.runpytest_subprocess(
        "-v", "-p", "xdist", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider"
    ).outlines
    pairs = {
        (line[1:4], name)
        for line in out
        for name in ("test_first", "test_second")
        if line[:3] == "[gw" and name in line
    }
    assert len(pairs) == 2, pairs
