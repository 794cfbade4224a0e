"""`python -m benchmarks.breaks`: its list fits the tree, and a break counts as caught only if a test fails for it."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.breaks.__main__ import try_all
from benchmarks.breaks.areas import AREAS
from benchmarks.breaks.planted import Break, Verdict, planted

ROOT = Path(__file__).parents[2]
BREAKS = [broken for breaks in AREAS.values() for broken in breaks]


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.name)
def test_each_break_applies_and_its_tests_exist(broken):
    text = planted((ROOT / broken.file).read_text(), broken)
    assert broken.new != broken.old
    if broken.file.endswith(".py"):
        compile(text, broken.file, "exec")
    assert broken.tests and all((ROOT / test.partition("::")[0]).exists() for test in broken.tests)


def test_names_are_unique():
    assert len({broken.name for broken in BREAKS}) == len(BREAKS)


HALF = Break("halves become thirds", "half.py", "/ 2", "/ 3", ("test_half.py",))


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take longer to import than the tests
    (tmp_path / "half.py").write_text("def half(x):\n    return x / 2\n\n\ndef name():\n    return 'half'\n")
    (tmp_path / "test_half.py").write_text("from half import half\n\n\ndef test_half():\n    assert half(4) == 2\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.integration
def test_a_break_is_caught_missed_stale_or_an_error(project):
    missed = Break("wrong name", "half.py", "'half'", "'third'", ("test_half.py",))
    stale = Break("gone", "half.py", "x / 4", "x", ("test_half.py",))
    no_import = Break("no import", "half.py", "def half", "deff half", ("test_half.py",))
    found = try_all([HALF, missed, stale, no_import], project, jobs=1)
    assert list(found.values()) == [Verdict.CAUGHT, Verdict.MISSED, Verdict.STALE, Verdict.ERROR]
    assert "x / 2" in (project / "half.py").read_text()


@pytest.mark.integration
def test_tests_that_fail_without_a_break_are_refused(project):
    (project / "test_half.py").write_text("def test_half():\n    assert False\n")
    with pytest.raises(SystemExit, match="without a break"):
        try_all([HALF], project, jobs=1)
