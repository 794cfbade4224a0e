"""A run that was asked to stop puts its SLURM job back into the queue, but for a job that was cancelled."""

import os
import re
import shutil
import subprocess
import sys


def requeue_job() -> None:
    """Put this process's SLURM job back into the queue, if there is one and nobody cancelled it.

    A job that exits by itself counts as finished, even after SLURM asked it to stop. Failures are printed;
    launch/slurm.sbatch then tries again, outside the container.
    """
    job = _job()
    if job is None:
        return
    if shutil.which("scontrol") is None:
        print(f"SLURM job {job}: there is no scontrol here to requeue it with", file=sys.stderr, flush=True)
        return
    if ended_for_good(_scontrol("show", "job", "--oneliner", job).stdout):
        outcome = "ended by SLURM (cancelled, or requeued by SLURM itself); it is not requeued from here"
    else:
        done = _scontrol("requeue", job)
        outcome = "requeued" if done.returncode == 0 else f"was not requeued: {done.stderr.strip()}"
    print(f"SLURM job {job}: {outcome}", file=sys.stderr, flush=True)


def ended_for_good(shown: str) -> bool:
    """Whether `scontrol show job` tells of a job that SLURM has ended, but not by preemption or at its time limit.

    SLURM asks a job to stop while that still runs (`--signal`, the grace time of a preemption). `scancel` and
    `scontrol requeue` end it first and tell its processes then: it is COMPLETING, as is one that has used up its time.
    """
    fields = dict(re.findall(r"(\w+)=(\S+)", shown))
    if fields.get("JobState") != "COMPLETING" or fields.get("PreemptTime", "None") != "None":
        return False
    run, limit = _seconds(fields.get("RunTime", "")), _seconds(fields.get("TimeLimit", ""))
    return run is None or limit is None or run < limit


def _seconds(duration: str) -> int | None:
    """Of `[days-]hours:minutes:seconds`; None of `UNLIMITED` and the like."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", duration)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _job() -> str | None:
    """A task of an array by both of its numbers: one task has the array's own number, which means all of them."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID")


def _scontrol(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["scontrol", *words], capture_output=True, text=True, check=False)
