"""`python -m benchmarks.guided_effects`: the tables of docs/guided.md, from what studies recorded."""

import json

import pytest

from benchmarks import guided_effects
from benchmarks.guided_effects import BEGIN, EFFECTS, END, PAGE, ROOT, STAMPS, tables, with_tables
from benchmarks.studies.records import Record

NUMBER = {"what": "gain in R@1", "value": 0.23456, "comparison": ">=", "threshold": 0.15, "control": ""}
CONTROL = {**NUMBER, "value": 0.012, "control": "no image dropout"}
MATRIX = {"title": "Real pictures", "about": "Three seeds.", "columns": ["captioner", "CIDEr-D"], "rows": [["a", ".1"]]}


ABOUT = {"date": "2026-11-30", "commit": "abc", "python": "3.12", "torch": "2.11", "transformers": "5.17"}


def record(file, seed, **changes):
    item, numbers = f"tests/effects/{file}::test_it_rises[seed{seed}]", [{**NUMBER, "value": seed + 0.2}, CONTROL]
    fields = {"outcome": "passed", "why": "", "cpu_seconds": 1.0, "numbers": numbers}
    return Record(item, (seed,), **ABOUT, **{**fields, **changes})


def records(**changes):
    return [record(file, seed, **changes) for files in EFFECTS.values() for file in files for seed in (0, 1)]


def test_every_effect_has_a_part_with_each_seed_beside_what_is_wanted_and_its_control():
    text = tables(records(), [MATRIX])
    assert all(f"### {title}\n\n2026-11-30, commit abc," in text for title in (*EFFECTS,))
    assert text.count("| gain in R@1 | >= 0.15 | 0.2 | 1.2 |") == len(EFFECTS)  # one a part: rows of a name are joined
    assert text.count("| *no image dropout*: gain in R@1 | not >= 0.15 | 0.012 | 0.012 |") == len(EFFECTS)
    assert "### Real pictures\n\nThree seeds.\n\n| captioner | CIDEr-D |\n| --- | --- |\n| a | .1 |" in text


def test_what_failed_is_said():
    failed = records(outcome="failed", why="0.1 >= 0.15")
    assert "**failed**" in tables(failed, []) and "seed 1: 0.1 >= 0.15" in tables(failed, [])


def test_only_what_stands_between_the_marks_is_written():
    page = f"# Guided\n\n{BEGIN}\n\nold\n\n{END}\n\nbehind\n"
    again = with_tables(with_tables(page, "new\n"), "newer\n")
    assert again == f"# Guided\n\n{BEGIN}\n\nnewer\n\n{END}\n\nbehind\n"


def test_a_page_without_marks_is_refused():
    with pytest.raises(SystemExit, match="put them where the tables are to stand"):
        with_tables("# Guided\n", "new")


def test_the_command_writes_what_is_committed(tmp_path, monkeypatch):
    """Of the page in the tree: each effect test of the issue has a part, and the prose stays."""
    copy = tmp_path / "guided.md"
    copy.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(guided_effects, "PAGE", copy)
    monkeypatch.setattr(guided_effects, "ROOT", tmp_path)
    guided_effects.main()
    written, committed = (path.read_text(encoding="utf-8") for path in (copy, PAGE))
    assert written.partition(BEGIN)[0] == committed.partition(BEGIN)[0]
    assert all(f"### {title}\n" in written for title in EFFECTS)
    assert all(f"### {table['title']}\n" in written for table in json.loads(STAMPS.read_text(encoding="utf-8")))
    assert all((ROOT / "tests/effects" / file).is_file() for files in EFFECTS.values() for file in files)
