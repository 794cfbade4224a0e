"""Which jobs of SLURM go back into the queue, by what a SLURM of two nodes (22.05) showed of them."""

import os

import pytest

from capkit.fault_tolerance.slurm_requeue import ended_for_good, requeue_job

WARNED = "JobState=RUNNING RunTime=00:01:02 TimeLimit=00:02:00 PreemptTime=None"
PREEMPTED = "JobState=RUNNING RunTime=00:00:31 TimeLimit=00:02:00 PreemptTime=2026-12-01T01:52:32"
CANCELLED = "JobState=COMPLETING Reason=None RunTime=00:00:05 TimeLimit=1-00:00:00 PreemptTime=None"
TIMED_OUT = "JobState=COMPLETING RunTime=1-00:00:19 TimeLimit=1-00:00:00 PreemptTime=None"
REQUEUED = "JobState=COMPLETING RunTime=00:00:00 TimeLimit=00:05:00"


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (WARNED, False),
        (PREEMPTED, False),
        (CANCELLED, True),
        (CANCELLED.replace("1-00:00:00", "UNLIMITED"), True),
        (CANCELLED.replace("PreemptTime=None", "PreemptTime=2026-12-01T01:52:32"), False),  # without a grace time
        (TIMED_OUT, False),
        (REQUEUED, True),
        ("", False),  # scontrol could not tell
    ],
)
def test_a_job_that_was_cancelled_has_ended_and_one_that_is_warned_has_not(shown, expected):
    assert ended_for_good(shown) is expected


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """A scontrol that shows the text given, and writes down what it is asked."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "25")

    def showing(text):
        program = tmp_path / "scontrol"
        program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho "{text}"\n')
        program.chmod(0o755)
        return tmp_path / "calls"

    return showing


def test_a_cancelled_job_stays_away(calls, capsys):
    asked = calls(CANCELLED)
    requeue_job()
    assert asked.read_text() == "show job --oneliner 25\n"
    assert "SLURM job 25: ended by SLURM" in capsys.readouterr().err


def test_the_task_with_the_number_of_its_array_is_requeued_alone(calls, monkeypatch):
    """`scontrol requeue 25` would stop and restart every task of array 25, also those that are done."""
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "25")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    asked = calls(WARNED)
    requeue_job()
    assert asked.read_text() == "show job --oneliner 25_3\nrequeue 25_3\n"
