"""`python -m benchmarks.studies`: its table forgets no effect, and a run that was cut goes on."""

import ast
import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.studies import __main__ as studies
from benchmarks.studies.__main__ import JSON, PAGE, ROOT, changed, collect, run_all
from benchmarks.studies.records import NOT_RUN, SEEDS, Record, form_of, merged, read_lines, read_table, write_table
from benchmarks.studies.remarks import FEWER, REMARKS
from benchmarks.studies.shards import shards
from benchmarks.studies.table import page
from capkit.fault_tolerance.stop_signal import Stopped

TESTS = Path(__file__).parents[1]

NUMBER = {"what": "R@1", "value": 0.71234, "comparison": ">", "threshold": 0.6, "control": ""}
CONTROL = {**NUMBER, "value": 0.01, "control": "untrained"}
RECORD = Record(
    item="tests/effects/test_a.py::test_it_is_found[seed0-t2i]",
    seeds=(0,),
    outcome="passed",
    why="",
    cpu_seconds=61.4,
    date="2026-11-29",
    commit="abc",
    python="3.12.3",
    torch="2.11.0",
    transformers="5.17.0",
    numbers=[NUMBER, CONTROL],
)


def of_seed(seed: int, **changes: object) -> Record:
    return replace(RECORD, item=RECORD.item.replace("seed0", f"seed{seed}"), seeds=(seed,), **changes)


def test_items_of_a_file_and_seed_stay_together_up_to_six_minutes_and_the_longest_come_first():
    items = [f"test_a.py::test_{name}[seed{seed}]" for name in "abc" for seed in (0, 1)]
    items += ["test_b.py::test_d[x-seed0]", "test_b.py::test_mean"]
    seconds = {items[0]: 200.0, items[2]: 150.0, items[4]: 20.0, items[6]: 500.0}
    assert shards(items, seconds) == [
        [items[6]],
        [items[0], items[2]],
        [items[4]],
        [items[1], items[3], items[5]],
        [items[7]],
    ]


def test_a_record_is_replaced_by_a_later_one_and_never_by_an_older():
    """Records that lie in a folder may be from before those of the table."""
    at = [
        replace(RECORD, date=f"2026-11-29 {time}", outcome=outcome)
        for time, outcome in (("08:00:00", "passed"), ("09:00:00", "failed"))
    ]
    for old, new in ([at[0]], [at[1]]), ([at[1]], [at[0]]), ([], at[::-1]):
        assert merged(old, new, [RECORD.item]) == [at[1]]
    assert merged([RECORD], [at[0]], [RECORD.item]) == [at[0]]  # of the same day, without a time
    assert merged(merged([], [], [RECORD.item]), [at[0]], [RECORD.item]) == [at[0]]  # was not run


def test_an_item_that_was_stopped_from_outside_has_no_record(tmp_path):
    stopped = of_seed(1, outcome="failed", why=f"{Stopped.__module__}.{Stopped.__qualname__}: 75")
    lines = [json.dumps({**asdict(row), "seeds": list(row.seeds)}) for row in (RECORD, stopped)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    assert read_lines(tmp_path) == [RECORD]


def test_the_page_has_numbers_beside_their_thresholds_and_controls():
    failed = of_seed(1, outcome="failed", why="assert a | b", numbers=[{**NUMBER, "value": 0.5}])
    text = page([RECORD, failed, replace(RECORD, item="tests/effects/test_b.py::test_of_means", seeds=(0, 1, 2))])
    assert "| **it is found [t2i]** | | passed, 61 s | **failed**, 61 s |" in text
    assert "| R@1 | > 0.6 | 0.712 | 0.5 |" in text
    assert "| *untrained*: R@1 | not > 0.6 | 0.01 |  |" in text
    assert "| seed 1: assert a \\| b | | | |" in text
    assert "| [test_a.py](#test_a) | 1 of 1 | **0 of 1** |  |  | 2.0 |" in text
    assert "| [test_b.py](#test_b) |  |  |  | 1 of 1 | 1.0 |" in text
    assert "2026-11-29, commit abc, Python 3.12.3, torch 2.11.0, transformers 5.17.0." in text


def test_rows_are_replaced_by_later_ones_and_there_is_one_for_each_item(tmp_path):
    old, new = [RECORD, of_seed(1), of_seed(2)], [of_seed(1, outcome="failed")]
    later = of_seed(3).item
    records = merged(old, new, [RECORD.item, new[0].item, later])
    assert records[:2] == [RECORD, new[0]]
    assert [(row.item, row.seeds, row.outcome) for row in records[2:]] == [(later, (3,), "not run")]
    write_table(tmp_path / "table.json", records)
    assert read_table(tmp_path / "table.json") == records


def test_the_form_of_a_test_is_what_it_does_and_not_how_it_is_explained():
    source = '"""Why."""\ndef test_a():\n    """How."""\n    assert found > 0.6  # enough\n'
    assert form_of(source) == form_of("def test_a():\n    assert found > 0.6\n")
    assert form_of(source) != form_of(source.replace("0.6", "0.5"))


def test_the_form_of_a_test_is_the_same_on_every_python():
    """What ast.dump writes of these lines differs between 3.11, 3.12 and 3.13; worked out on each."""
    source = """class A:\n    def f(self, *, width=None):\n        return f"{self:<{width}}", {**self, 1: None}, []\n"""
    assert form_of(source) == "6edc699c1bd9"
    assert form_of(source) != form_of(source.replace("width=None", "width=0"))
    assert form_of(source) != form_of(source.replace(", []", ""))


def test_changed_are_listed_and_neither_run_nor_written_unless_they_are_to_run(monkeypatch, capsys):
    row = replace(RECORD, item="tests/effects/test_clip.py::test_it_is_found", form="of yesterday")
    monkeypatch.setattr(studies, "collect", lambda root: [row.item])
    monkeypatch.setattr(studies, "read_table", lambda file: [row])
    monkeypatch.setattr(studies, "run_all", lambda items, *_: pytest.fail(f"runs {items}"))
    monkeypatch.setattr(studies, "write_table", lambda *_: pytest.fail("writes"))
    monkeypatch.setattr("sys.argv", ["studies", "--changed"])
    studies.main()
    assert capsys.readouterr().out.splitlines()[0] == row.item
    monkeypatch.setattr("sys.argv", ["studies", "--changed", "--run"])
    with pytest.raises(pytest.fail.Exception, match=f"runs .*{re.escape(row.item)}"):
        studies.main()
    monkeypatch.setattr("sys.argv", ["studies", "--run"])
    with pytest.raises(SystemExit):
        studies.main()
    assert "expected --run beside --changed" in capsys.readouterr().err


def test_changed_are_items_of_another_form_of_their_file_and_those_without_a_row(tmp_path):
    """A row of an earlier threshold is none of the test that there is now."""
    (tmp_path / "tests" / "effects").mkdir(parents=True)
    (tmp_path / "tests" / "effects" / "test_a.py").write_text("SHAPE = 0.6\n")
    now = form_of("SHAPE = 0.6\n")
    rows = [replace(RECORD, form=now), of_seed(1, form=form_of("SHAPE = 0.5\n")), of_seed(2)]
    rows += [of_seed(3, form=now, outcome=NOT_RUN)]
    items = [row.item for row in rows] + [of_seed(4).item]
    assert changed(items, rows, tmp_path) == items[1:]


# The committed table --------------------------------------------------------------------------------------------------

EFFECTS = sorted(path.name for path in (TESTS / "effects").glob("test_*.py"))


WITHOUT_NUMBERS = {  # what they compare is no number of a method
    "test_a_start_in_the_tree_can_do_what_its_run_could",
    "test_a_start_that_is_made_anew_can_do_the_same",
    "test_a_frontier_goes_on_where_it_stopped",
    "test_a_picture_that_is_dropped_changes_no_other_question",
    "test_a_student_that_sees_leaves_every_caption_as_it_was",
    "test_an_encoder_with_the_projections_of_another_cannot",
    "test_bert_score_is_rescaled_by_what_captions_of_other_pictures_have_in_common",
    "test_evaluation_is_deterministic",
    "test_no_reference_repeats_four_words",
    "test_swapped_captions_hold_the_same_words_and_say_something_else",
    "test_what_was_frozen_is_unchanged",
}


@pytest.mark.parametrize("file", EFFECTS)
def test_every_effect_test_records_what_it_measures(file):
    functions = [node for node in ast.walk(ast.parse((TESTS / "effects" / file).read_text())) if is_test(node)]
    arguments = {node.name: {argument.arg for argument in node.args.args} for node in functions}
    assert {name for name, taken in arguments.items() if "measured" not in taken} <= WITHOUT_NUMBERS


def is_test(node):
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


@pytest.fixture(scope="module")
def committed():
    return read_table(ROOT / JSON)


@pytest.mark.parametrize("file", EFFECTS)
def test_the_committed_table_has_every_effect_with_three_seeds_or_says_why_not(file, committed):
    """After a new file: `python -m benchmarks.studies FILE`, or an entry in benchmarks/studies/remarks.py."""
    records = [record for record in committed if record.file == file]
    seeds = {seed for record in records if record.outcome in ("passed", "failed") for seed in record.seeds}
    assert (seeds >= set(SEEDS)) != (file in FEWER), f"seeds {sorted(seeds)} of {file} in {JSON}"
    assert all(any(record.numbers for record in records if seed in record.seeds) for seed in seeds)


def test_the_committed_page_is_that_of_its_numbers(committed):
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(committed)


def test_failures_in_the_committed_table_are_explained(committed):
    failed = {record.file for record in committed if record.outcome == "failed"}
    assert failed <= REMARKS.keys(), "say in benchmarks/studies/remarks.py what was found out"
    assert {*FEWER, *REMARKS} <= set(EFFECTS)


# Running --------------------------------------------------------------------------------------------------------------

EFFECT = """
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.effect

@pytest.mark.nightly
def test_it_is_found(seed, measured):
    Path(f"ran-{seed}-{len(list(Path.cwd().glob('ran-*')))}").touch()
    if seed == 2 and not Path("mended").exists():
        os._exit(9)
    assert measured("R@1", 0.7 - 0.1 * seed, ">", 0.65)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one effect test and this suite's plugins.

    Torch and transformers, of which they want the versions, are empty modules: the real ones would take most of the
    time of each process.
    """
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "torch.py").write_text("__version__ = '2'\ndef set_num_threads(number): pass\n")
    (tmp_path / "empty" / "transformers.py").write_text("__version__ = '5'\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'empty'}:{TESTS}:{TESTS.parent}")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "tests" / "effects").mkdir(parents=True)
    (tmp_path / "tests" / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (tmp_path / "tests" / "effects" / "test_a.py").write_text(EFFECT)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['effect: e', 'nightly: n']\n")
    return tmp_path


@pytest.mark.integration
def test_failures_and_dead_processes_are_survived_and_only_what_left_no_record_runs_again(project):
    items, out = collect(project), project / "out"
    assert len(items) == 3
    (out / "shared" / "run").mkdir(parents=True)
    (out / "shared" / "run" / "metrics.jsonl").write_text('{"step": 1}\n')

    def run():
        found = run_all(items, project, out, out / "shared", jobs=1, commit="abc", seconds={})
        return {record.seeds[0]: record.outcome for record in found}

    assert run() == {0: "passed", 1: "failed"}
    (project / "mended").touch()
    assert run() == {0: "passed", 1: "failed", 2: "failed"}
    assert len(list(project.glob("ran-*"))) == 4
    (project / "tests" / "effects" / "test_a.py").write_text(EFFECT.replace("0.65", "0.45"))
    assert run() == {0: "passed", 1: "passed", 2: "passed"}, "records of other code do not count"
    records = read_lines(out / "records")
    assert all(record.numbers and record.commit == "abc" for record in records)
    assert {(record.torch, record.transformers) for record in records} == {("2", "5")}
