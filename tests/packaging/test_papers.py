"""`docs/papers.md` has a row for each of the 41 systems, and names only experiments and tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if re.match(r"\| \d+ \|", line)
]
EXPERIMENTS = {path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml")}


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_there_is_one_row_for_each_of_the_41_systems():
    assert [int(row[0]) for row in ROWS] == list(range(1, 42))
    assert all(len(row) == 6 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_names_its_paper_and_parts_that_exist(row):
    _, paper, kind, experiments, tests, status = row
    assert re.search(r"\[arXiv (\d{4}\.\d{5})\]\(https://arxiv\.org/abs/\1\)", paper) and kind
    assert set(quoted(experiments)) <= EXPERIMENTS
    assert all((ROOT / name).is_file() for name in quoted(tests))
    word = re.match(r"\w+", status)[0]
    assert word in ("works", "partly", "planned")
    assert (word == "planned") == (not quoted(experiments))
    assert word != "works" or quoted(tests)


def test_every_experiment_is_named_once():
    rest = PAGE.split("## Other experiments")[1]
    named = [name for row in ROWS for name in quoted(row[3])]
    named += [name for line in rest.splitlines() if line.startswith("| `") for name in quoted(line.split("|")[1])]
    assert len(named) == len(set(named))
    assert set(named) == EXPERIMENTS


def test_every_effect_test_is_named():
    files = {f"tests/effects/{path.name}" for path in (ROOT / "tests" / "effects").glob("test_*.py")}
    named = {name for name in quoted(PAGE) if name.startswith("tests/effects/")}
    assert files == named
