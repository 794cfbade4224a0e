"""The address of rank 0, asked of a scontrol that knows two nodes."""

import os

import pytest

from capkit.distributed.slurm import share_main_address
from capkit.errors import UsageError

SCONTROL = """#!/bin/sh
case "$1 $2" in
"show hostnames") [ "$3" = "n[7-8]" ] && printf 'n7\\nn8\\n' ;;
"show node") echo "NodeName=$3 Arch=x86_64 NodeAddr=10.0.0.7 NodeHostName=$3 Version=23" ;;
esac
"""
REFUSES = "#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n"


@pytest.fixture
def task(tmp_path, monkeypatch):
    """Makes this process a task of srun on two nodes, with the scontrol given, or none."""
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("SLURM_STEP_NODELIST", "n[7-8]")
    monkeypatch.setenv("PATH", str(tmp_path))

    def with_scontrol(text):
        (tmp_path / "scontrol").write_text(text)
        (tmp_path / "scontrol").chmod(0o755)

    return with_scontrol


def address(monkeypatch):
    """What the environment holds afterwards; monkeypatch takes it away at the end of the test."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    share_main_address()
    return os.environ.get("MASTER_ADDR")


def test_a_task_of_srun_meets_the_others_where_slurm_reaches_the_first_node(task, monkeypatch):
    task(SCONTROL)
    assert address(monkeypatch) == "10.0.0.7"


def test_an_address_that_is_given_stays(task, monkeypatch):
    task(REFUSES)
    monkeypatch.setenv("MASTER_ADDR", "10.9.9.9")
    assert address(monkeypatch) == "10.9.9.9"


@pytest.mark.parametrize("missing", ["scontrol", "srun"])
def test_without_srun_or_scontrol_no_address_is_made_up(task, monkeypatch, missing):
    if missing == "srun":
        task(REFUSES)
        monkeypatch.delenv("SLURM_STEP_NODELIST")
    assert address(monkeypatch) is None


def test_a_slurm_that_does_not_answer_is_told_with_the_way_out(task, monkeypatch):
    task(REFUSES)
    with pytest.raises(UsageError, match="Unable to contact slurm controller; set MASTER_ADDR"):
        address(monkeypatch)
