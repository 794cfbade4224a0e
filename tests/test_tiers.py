"""Which items a session runs, in which order, and which of them one worker keeps together."""

import pytest

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


def test_items_of_a_file_or_of_a_shared_run_are_one_group(run, pytester):
    pytester.makeconftest("""
import pytest

@pytest.fixture(scope="session")
def sceneworld_clip(): pass

@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    for item in items:
        assert [mark.args[0] for mark in item.iter_markers("xdist_group")] == [item.function.__doc__]
""")
    first = """
import pytest

def test_one(): "test_first"

def test_two(sceneworld_clip): "clip"

@pytest.mark.xdist_group("mine")
def test_three(): "mine"
"""
    second = 'def test_four(sceneworld_clip): "clip"'
    assert len(run(test_first=first, test_second=second)) == 4
