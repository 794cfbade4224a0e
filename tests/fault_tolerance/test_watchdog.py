"""Ranks without torch, in processes of their own: what the others do when one of them is lost, stuck or fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from capkit.errors import LOST_STATUS
from capkit.fault_tolerance import watchdog
from capkit.fault_tolerance.heartbeats import Heartbeat, HeartbeatFiles, Verdict, attempts, new_attempt, read_verdict
from capkit.fault_tolerance.liveness import SECTIONS, mark_progress
from capkit.fault_tolerance.watchdog import Watchdog, stalled_ranks
from capkit.utils.own_process import lent_process

RANK = Path(__file__).with_name("rank_process.py")
REPOSITORY = Path(__file__).parents[2]


class Ranks:
    def __init__(self, folder, whats):
        self.folder = new_attempt(folder)
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        self.processes = [
            subprocess.Popen(
                [sys.executable, str(RANK), str(self.folder), str(rank), str(len(whats)), what],
                stderr=subprocess.PIPE, text=True, env=environment,
            )
            for rank, what in enumerate(whats)
        ]  # fmt: skip
        deadline = time.monotonic() + 30
        while len(list(self.folder.glob("ready-*"))) < len(whats) and time.monotonic() < deadline:
            time.sleep(0.02)

    def ended(self):
        """(exit status, what it wrote to stderr) of each rank. Raises TimeoutExpired where one hangs."""
        try:
            errors = [process.communicate(timeout=20)[1] for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        return [(process.returncode, error) for process, error in zip(self.processes, errors, strict=True)]


@pytest.mark.parametrize(
    ("fault", "told"), [(signal.SIGSTOP, "was stopped, and is silent for"), (signal.SIGKILL, "its process is gone")]
)
def test_a_rank_that_is_lost_ends_the_others_who_tell_its_number_and_where_they_were(tmp_path, fault, told):
    ranks = Ranks(tmp_path, ["live"] * 3)
    time.sleep(0.5)  # a sign of life from each
    ranks.processes[1].send_signal(fault)
    (first, error), (lost, _), (third, silence) = ranks.ended()
    assert (first, lost, third) == (LOST_STATUS, -signal.SIGKILL, LOST_STATUS)
    assert error.startswith("error: lost rank, all ranks end: rank 1 (") and told in error
    assert "section step, step 7" in error and "rank 2:\n" in error and "in run\n    time.sleep(0.05)" in error
    assert silence == ""
    for rank in (0, 2):
        text = (ranks.folder / f"stacks-rank-{rank}.txt").read_text()
        assert "rank_process.py" in text and "watchdog.py" in text  # of all threads
    verdict = read_verdict(ranks.folder / "verdicts.jsonl")
    assert (verdict.kind, verdict.by, verdict.ranks) == ("lost", 0, [1])


def test_the_rank_that_raises_tells_its_error_and_those_that_lost_their_connection_by_it_are_silent(tmp_path):
    started = time.monotonic()
    (first, silence), (second, error) = Ranks(tmp_path, ["lose_connection", "raise"]).ended()
    assert (first, second) == (1, 1) and silence == ""
    assert "KeyError: 'no such reward'" in error and "rank 1 of 2 failed, all ranks end" in error
    assert time.monotonic() - started < 15


@pytest.mark.integration
def test_a_broken_connection_that_nobody_explains_is_told_itself(tmp_path):
    (first, error), (second, silence) = Ranks(tmp_path, ["lose_connection", "live"]).ended()
    assert (first, second) == (1, 1) and silence == ""
    assert "rank 0 of 2 failed" in error and "Connection closed by peer" in error


def test_of_ranks_that_do_not_get_on_the_one_that_waits_for_no_other_is_named(tmp_path):
    (first, a), (second, b) = Ranks(tmp_path, ["stuck_waiting", "stuck"]).ended()
    assert (first, second) == (LOST_STATUS, LOST_STATUS)
    assert "stuck rank, all ranks end: rank 1 (" in a + b and "no progress for" in a + b
    assert "rank 0:\n" in a + b and "all_reduce" in a + b


def test_ranks_that_end_well_leave_nothing_behind(tmp_path):
    ranks = Ranks(tmp_path, ["leave", "leave"])
    assert ranks.ended() == [(0, ""), (0, "")]
    assert not list(ranks.folder.glob("rank-*")) and not list(ranks.folder.glob("stacks-*"))


def test_a_single_rank_in_another_programs_process_is_told_that_it_is_stuck_and_lives(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(watchdog, "TICK_S", 0.05)
    monkeypatch.setattr(os, "_exit", lambda status: pytest.fail("it was ended"))
    folder = new_attempt(tmp_path)
    with lent_process():
        watching = Watchdog(HeartbeatFiles(folder, 0, 1), 8.0, dict.fromkeys(SECTIONS, 0.2))
        mark_progress("step", step=7)
        watching.start()
        time.sleep(1)
        watching.stop()
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith("warning: no progress for 0 s in ")
    assert told[0].endswith("section step allows 0 s; Ctrl-C ends the run")
    assert read_verdict(folder / "verdicts.jsonl") is None


def beat(rank, count, waits):
    return Heartbeat(rank, 1, "step", count, 0, 1.0, "x.py:1 in f", waits, "host", 1, None, None)


def test_fault_lies_with_the_rank_furthest_behind_of_those_that_do_not_wait():
    assert stalled_ranks([beat(0, 3, True), beat(1, 5, False), beat(2, 4, False)]) == [beat(2, 4, False)]
    assert stalled_ranks([beat(0, 4, True), beat(1, 3, True)]) == [beat(1, 3, True)]


def test_the_first_verdict_stands_and_a_cut_off_one_is_none(tmp_path):
    first, second = HeartbeatFiles(new_attempt(tmp_path), 0, 2), HeartbeatFiles(attempts(tmp_path)[0], 1, 2)
    mine, theirs = (Verdict("error", rank, [rank], 1, "why") for rank in (0, 1))
    assert first.report(mine) == mine
    assert second.report(theirs) == mine == second.verdict()
    cut = tmp_path / "cut.jsonl"
    cut.write_text('{"kind": "lost", "by"')
    assert read_verdict(cut) is None


def test_a_beat_is_written_over_the_last_in_place_so_that_a_full_disk_allows_it(tmp_path):
    channel = HeartbeatFiles(new_attempt(tmp_path), 0, 2)
    channel.open(beat(0, 7, False))
    assert channel.read(0) == beat(0, 7, False)
    file = channel.folder / "rank-00000.json"
    before = file.stat()
    for count in (1, 20):
        channel.beat(beat(0, count, False))
        assert channel.read(0) == beat(0, count, False)
    assert (file.stat().st_ino, file.stat().st_size) == (before.st_ino, before.st_size)


def test_attempts_without_a_verdict_are_swept_away_by_the_next(tmp_path):
    with_verdict = new_attempt(tmp_path)
    HeartbeatFiles(with_verdict, 0, 1).report(Verdict("lost", 0, [1], 81, "gone"))
    killed = new_attempt(tmp_path)
    (killed / "rank-00000.json").touch()
    third = new_attempt(tmp_path)
    assert attempts(tmp_path) == [with_verdict, third]
    assert third.name == "attempt-0003"
