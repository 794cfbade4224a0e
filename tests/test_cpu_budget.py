"""An unmarked item that takes too much CPU time fails, and so does a session above its budget."""

import json
import os
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

INI = """
[pytest]
markers =
    integration: tier 1
    nightly: tier 2
item_cpu_seconds = 0.2
tier_cpu_seconds = {budget}
"""
BURN = """
import time

def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
"""
UNLIMITED = 1e9


@pytest.fixture
def outcome(pytester, monkeypatch):
    """Runs a test file in a session of its own, with this suite's two plugins."""

    def run(text, *words, budget=UNLIMITED, start=pytester.runpytest_inprocess):
        pytester.makefile(".ini", pytest=INI.format(budget=budget))
        pytester.makepyfile(burning=BURN, test_here=f"import pytest\nfrom burning import burn\n{text}")
        return start("-p", "tiers", "-p", "cpu_budget", "-p", "no:hypothesispytest", *words)

    monkeypatch.syspath_prepend(pytester.path)
    return run


def failures(result):
    return result.parseoutcomes().get("failed", 0)


def test_an_unmarked_item_above_the_limit_fails_and_the_message_names_the_marks(outcome):
    result = outcome("def test_long(): burn(0.3)\ndef test_short(): burn(0.01)")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*at most 0.2 CPU seconds, got 0.*fewer steps*integration*effect*nightly*"])


def test_a_marked_item_may_take_longer(outcome):
    outcome("@pytest.mark.integration\ndef test_long(): burn(0.3)", "--tier", "1").assert_outcomes(passed=1)


def test_seconds_of_child_processes_count(outcome):
    child = "import time\\nwhile time.process_time() < 0.4: pass"
    text = f"import subprocess, sys\ndef test_child(): subprocess.run([sys.executable, '-S', '-c', '{child}'])"
    outcome(text).assert_outcomes(failed=1)


def test_seconds_of_grandchildren_count_whose_parent_lives_on(outcome, pytester):
    """As a fork server does."""
    child = "import time\\nwhile time.process_time() < 0.4: pass"
    server = f"import subprocess, sys\nsubprocess.run([sys.executable, '-S', '-c', '{child}'])\nprint(1, flush=True)"
    pytester.makepyfile(server=f"{server}\nsys.stdin.read()")
    text = """
import subprocess, sys

@pytest.fixture(scope="session")
def server():
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-S", "server.py"], **pipes) as process:
        yield process

def test_it(server): server.stdout.readline()
"""
    outcome(text).assert_outcomes(failed=1)


@pytest.mark.parametrize(("scope", "failed"), [("session", 0), ("module", 1), ("function", 1)])
def test_a_fixture_counts_unless_it_is_the_sessions(outcome, scope, failed):
    text = f"@pytest.fixture(scope='{scope}')\ndef made(): burn(0.3)\ndef test_first(made): burn(0.01)"
    assert failures(outcome(text)) == failed


@pytest.mark.parametrize("how", ["import late_module", "__import__('importlib').import_module('late_module')"])
def test_the_first_import_of_a_module_does_not_count(outcome, pytester, how):
    pytester.makepyfile(late_module="import burning; burning.burn(0.3)")
    outcome(f"def test_first():\n    {how}\n    burn(0.01)").assert_outcomes(passed=1)


def test_time_after_an_import_counts(outcome):
    outcome("def test_first():\n    import string\n    burn(0.3)").assert_outcomes(failed=1)


def test_a_failing_item_keeps_its_own_message(outcome):
    result = outcome("def test_long():\n    burn(0.3)\n    assert 1 == 2")
    result.stdout.fnmatch_lines(["*assert 1 == 2*"])
    assert "CPU seconds, got" not in result.stdout.str()


def test_a_session_above_its_budget_fails_with_numbers_if_the_budget_is_asked_for(outcome):
    text = "def test_it(): burn(0.01)"
    assert outcome(text, budget="0.001").ret == 0
    result = outcome(text, "--budget", budget="0.001")
    assert result.ret == pytest.ExitCode.TESTS_FAILED and failures(result) == 0
    result.stdout.fnmatch_lines(["over budget: expected tier 0 within 0 CPU seconds, got *"])
    assert outcome(text, "--budget", budget=UNLIMITED).ret == 0


def test_a_lower_tier_above_its_budget_fails_a_session_of_a_higher_one(outcome):
    text = "def test_it(): burn(0.01)"
    result = outcome(text, "--budget", "--tier", "1", budget=f"0.001 {UNLIMITED}")
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_seconds_are_printed_and_written(outcome, pytester):
    result = outcome("def test_it(): burn(0.1)\n@pytest.mark.integration\ndef test_run(): burn(0.3)", "--tier", "1")
    result.stdout.fnmatch_lines(["*min  items of tier 0", "*min  items of tier 1", "*min  in all*"])
    result.stdout.fnmatch_lines(["*s    test_here.py::test_run integration", "*s    test_here.py::test_it*"])
    items = json.loads((pytester.path / ".pytest_cache/cpu_seconds.json").read_text())["items"]
    assert {name: row["marks"] for name, row in items.items()} == {
        "test_here.py::test_it": [], "test_here.py::test_run": ["integration"],
    }  # fmt: skip
    assert 0.1 <= items["test_here.py::test_it"]["test"] < 0.2 < items["test_here.py::test_run"]["test"]


@pytest.mark.integration
def test_workers_measure_and_the_controller_sums(outcome, pytester, monkeypatch):
    """Under xdist, where names lose the suffix of their group."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    text = "def test_long(): burn(0.5)\n@pytest.mark.integration\ndef test_run(): burn(0.7)"
    words = ["-p", "xdist", "-n", "2", "--dist", "loadgroup", "--tier", "1", "--budget"]
    result = outcome(text, *words, budget="0.5 1.2", start=pytester.runpytest_subprocess)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED test_here.py::test_long - *"])
    result.stdout.fnmatch_lines(["*tier 0 within 0 CPU seconds*", "*tier 1 within 1 CPU seconds, got *"])
    written = json.loads((pytester.path / ".pytest_cache/cpu_seconds.json").read_text())
    assert set(written["items"]) == {"test_here.py::test_long", "test_here.py::test_run"}
    assert 1.2 < written["total"] < 2 * result.duration  # of two workers, each counted once
