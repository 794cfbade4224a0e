"""`python -m benchmarks.levels`: its table, what is read again, and a cell that fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import levels

FOUND = {"top": 0.75, "vanilla": 0.5, "spearman": 1.0, "held": 120, "clean": 0.99}


@pytest.fixture
def cells(monkeypatch, tmp_path):
    """Started cells by folder; those of seed 11 fail."""
    started = []

    def run(command, stdout, **_):
        folder = Path(stdout.name).parent
        started.append(folder.name)
        if folder.name.endswith("-11"):
            stdout.write("no such scorer")
        else:
            (folder / "found.json").write_text(json.dumps(FOUND))
        return subprocess.CompletedProcess(command, int(folder.name.endswith("-11")))

    monkeypatch.setattr(levels.subprocess, "run", run)
    return started


def command(monkeypatch, out, *words):
    monkeypatch.setattr(sys, "argv", ["levels", "--out", str(out), "--shares", "0.8", *words])
    with pytest.raises(SystemExit) as ended:
        levels.main()
    return ended.value.code


def test_a_row_holds_each_seed_and_what_is_done_is_not_made_again(cells, monkeypatch, tmp_path, capsys):
    words = ["--seeds", "10", "12", "--only", "wide"]
    assert command(monkeypatch, tmp_path, *words) == 0
    row = "| wide | 80% | 0.25 0.25 | 0.75 0.75 | 0.50 0.50 | 1.00 1.00 | 0.99 0.99 | 120 120 |"
    assert row in capsys.readouterr().out
    assert cells == ["wide-0.8-10", "wide-0.8-12", "long-and-wide-0.8-10", "long-and-wide-0.8-12"]
    assert command(monkeypatch, tmp_path, *words) == 0
    assert len(cells) == 4


def test_a_cell_that_fails_says_why_and_ends_no_other(cells, monkeypatch, tmp_path, capsys):
    assert command(monkeypatch, tmp_path, "--seeds", "11", "12", "--only", "short") == 1
    shown = capsys.readouterr()
    assert "short-0.8-11 failed:\nno such scorer" in shown.err
    assert "| short | 80% | 0.25 | 0.75 | 0.50 | 1.00 | 0.99 | 120 |" in shown.out
