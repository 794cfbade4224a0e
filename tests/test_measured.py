"""A measured number is compared with its threshold, and kept beside it whatever the outcome."""

import json

import pytest
from measured import Number

pytest_plugins = ["pytester"]

FILE = """
import pytest

@pytest.fixture
def seeds():
    return range(3)

@pytest.mark.parametrize("seed", [0, 1])
def test_recall(measured, seed):
    assert measured("R@1", 0.7 - 0.2 * seed, ">", 0.6)
    assert not measured("R@1", 0.1, ">", 0.6, control="untrained")

def test_mean(measured, seeds):
    assert not any([measured("a", 1, "<", 0.5), measured("b", 2, "<=", 1, control="c")])

def test_left_out():
    pytest.skip("no weights")

@pytest.fixture
def broken():
    raise ValueError("no such run")

def test_of_a_broken_start(broken): pass
"""


@pytest.fixture
def records(pytester):
    pytester.makepyfile(test_of_records=FILE)
    words = ["--record", "kept/lines.jsonl", "--record-with", "commit=a=b"]
    pytester.inline_run("-p", "measured", "-p", "no:hypothesispytest", *words)
    lines = (pytester.path / "kept" / "lines.jsonl").read_text().splitlines()
    return {row["item"].partition("::")[2]: row for row in map(json.loads, lines)}


@pytest.mark.parametrize(
    ("comparison", "holds"),
    [(">", False), (">=", True), ("<", False), ("<=", True), ("==", True)],
)
def test_a_number_at_its_threshold(comparison, holds):
    assert bool(Number("R@1", 0.5, comparison, 0.5)) == holds
    assert not Number("R@1", float("nan"), comparison, 0.5)


def test_numbers_and_outcomes_are_kept_for_each_item(records):
    assert {name: row["outcome"] for name, row in records.items()} == {
        "test_recall[0]": "passed",
        "test_recall[1]": "failed",
        "test_mean": "passed",
        "test_left_out": "skipped",
        "test_of_a_broken_start": "failed",
    }
    trained = {"what": "R@1", "value": 0.7, "comparison": ">", "threshold": 0.6, "control": ""}
    untrained = {**trained, "value": 0.1, "control": "untrained"}
    assert records["test_recall[0]"]["numbers"] == [trained, untrained]
    assert [number["value"] for number in records["test_recall[1]"]["numbers"]] == [pytest.approx(0.5)]
    assert [number["what"] for number in records["test_mean"]["numbers"]] == ["a", "b"]


def test_a_record_says_why_and_of_which_seeds(records):
    assert "(R@1 0.5, wanted > 0.6)" in records["test_recall[1]"]["why"]
    assert records["test_left_out"]["why"] == "no weights"
    assert records["test_of_a_broken_start"]["why"] == "ValueError: no such run"
    assert [records[name]["seeds"] for name in ("test_recall[1]", "test_mean", "test_left_out")] == [[1], [0, 1, 2], []]
    assert all(row["commit"] == "a=b" and row["torch"] for row in records.values())
