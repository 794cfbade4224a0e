"""`docs/walk.md`: each function that it names exists where it says, and its examples give what they show."""

import ast
import doctest
import re
from pathlib import Path

import pytest

import capkit.tasks.fit_rl  # noqa: F401  what the examples import, imported while tests are collected

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "walk.md").read_text(encoding="utf-8")
STATIONS = re.findall(r"^\| `([\w/.]+\.py)` \| `([\w.]+)` \| \S", PAGE, flags=re.MULTILINE)


def defined(file: str) -> set[str]:
    """Functions, and `Class.method`s, of a file."""
    names = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return names


@pytest.mark.parametrize(("file", "function"), STATIONS, ids=lambda value: value)
def test_a_station_of_the_walk_exists(file, function):
    assert function in defined(file)


def test_the_walk_goes_through_both_tasks():
    assert {"capkit/tasks/fit.py", "capkit/tasks/fit_rl.py"} <= {file for file, _ in STATIONS}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's on loaders without workers
def test_the_examples_give_what_they_show():
    examples = re.sub(r"^```.*$", "", PAGE, flags=re.MULTILINE)
    test = doctest.DocTestParser().get_doctest(examples, {}, "walk.md", "docs/walk.md", 0)
    assert len(test.examples) > 40
    told: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    assert not told, "".join(told)
