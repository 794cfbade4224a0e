"""A handful of what `python -m benchmarks.faults` does by the hundred: kill -9 at random moments, and worse."""

import json

import pytest

from benchmarks.faults.__main__ import Campaign, Life, lives, table
from benchmarks.faults.kinds import KINDS
from benchmarks.faults.runs import METHODS, differences
from capkit.run.folder import RunFolder

pytestmark = pytest.mark.nightly

LIVES = [
    Life(0, "mle", "ddp", ["kill_all", "kill_in_save", "term_one", "flip_newest"], seed=1),
    Life(1, "contrastive", "one", ["kill_all", "cut_newest"], seed=2),
]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return Campaign(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def rows(campaign):
    return [campaign.live(life) for life in LIVES]


@pytest.mark.parametrize("number", range(len(LIVES)))
def test_a_run_that_was_killed_again_and_again_ends_as_one_that_was_left_alone(rows, number):
    row = rows[number]
    assert row["failed"] is None and row["differences"] == []
    assert row["faults"]


def test_no_committed_step_was_lost_and_nothing_hung(rows):
    faults = [fault for row in rows for fault in row["faults"]]
    assert all((fault["resumed_from"] or 0) >= fault["committed"] for fault in faults)
    assert not any(fault["hung"] or fault["wrong"] for fault in faults)
    assert any(fault["committed"] > 0 for fault in faults)


def test_the_table_counts_every_fault(rows):
    text = table(rows)
    assert f"| all | {sum(len(row['faults']) for row in rows)} | 0 | 0 | 0 |" in text
    assert f"{len(rows)} runs, {len(rows)} of them equal" in text


def test_what_differs_is_seen(campaign, rows, tmp_path):
    run, _ = campaign.undisturbed("mle", "ddp")
    assert differences(run, run) == []
    rows_of_run = [json.loads(line) for line in run.metrics_log.read_text().splitlines()]
    rows_of_run[-1]["val/loss"] += 1e-9
    other = tmp_path / "run"
    other.mkdir()
    for name in ("metrics.json", "predictions", "batches"):
        (other / name).symlink_to(run.path / name)
    (other / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of_run))
    theirs, _ = campaign.undisturbed("contrastive", "one")
    (other / "checkpoints").symlink_to(theirs.checkpoints)
    assert differences(run, RunFolder(other)) == ["rows", "last checkpoint"]


def test_lives_follow_from_the_seed_and_cover_every_kind():
    first = lives(60, 3, list(KINDS), list(METHODS))
    assert first == lives(60, 3, list(KINDS), list(METHODS)) != lives(60, 4, list(KINDS), list(METHODS))
    used = {kind for life in first for kind in life.kinds}
    assert {kind for kind, about in KINDS.items() if not about.disk and not about.rounds} <= used
    assert not any(KINDS[kind].rounds for kind in used), "their runs end at other numbers"
    assert not any(KINDS[kind].many for life in first if life.strategy == "one" for kind in life.kinds)
