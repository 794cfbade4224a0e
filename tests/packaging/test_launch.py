"""The scripts that start runs, with a SLURM and a torchrun that write down what they are asked."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
SBATCH = LAUNCH / "slurm.sbatch"
SCONTROL = """
case "$1 $2" in
"show hostnames") printf 'n7\\nn8\\n' ;;
"show node") echo "NodeName=$3 Arch=x86_64 NodeAddr=10.0.0.7 NodeHostName=$3 Version=23" ;;
*) echo "scontrol $*" >> calls ;;
esac
"""
ARRAY = {"SLURM_ARRAY_JOB_ID": "60003", "SLURM_ARRAY_TASK_ID": "3"}  # the task that has the array's number
SRUN = """
echo "$MASTER_ADDR $MASTER_PORT" > address
for word in "$@"; do echo "$word"; done > words
exit "${SRUN_STATUS:-0}"
"""
TORCHRUN = """
for word in "$@"; do echo "$word"; done > words
if [ -n "$WAITS" ]; then trap 'exit 1' TERM; touch waiting; while true; do sleep 0.1; done; fi
exit 3
"""


@pytest.fixture
def start(tmp_path):
    """Runs a script of launch/ with the words and the environment given."""
    for name, text in {"scontrol": SCONTROL, "srun": SRUN, "torchrun": TORCHRUN}.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/usr/bin/env bash\n{text}")
        program.chmod(0o755)

    def run(script, *words, **environment):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "CAPKIT"))}
        kept["PATH"] = f"{tmp_path / 'bin'}:{kept['PATH']}"
        return subprocess.Popen(
            ["bash", LAUNCH / script, *words], cwd=tmp_path, env=kept | environment, stderr=subprocess.PIPE, text=True
        )

    return run


@pytest.fixture
def slurm(start):
    """As SLURM runs the batch script; gives its status."""
    job = {"SLURM_JOB_ID": "60003", "SLURM_JOB_NAME": "mle", "SLURM_JOB_NODELIST": "n[7-8]", "SLURM_JOB_NUM_NODES": "2"}
    return lambda *words, **environment: start("slurm.sbatch", *words, **job, **environment).wait(30)


def words(folder):
    return (folder / "words").read_text().splitlines()


def test_a_job_has_its_folder_from_its_name_and_its_address_from_slurm(slurm, tmp_path):
    assert slurm("trainer=ddp", "images=my photos") == 0
    assert words(tmp_path)[1:] == ["capkit", "trainer=ddp", "images=my photos", "run_dir=runs/mle"]
    address, port = (tmp_path / "address").read_text().split()
    assert address == "10.0.0.7"
    assert 10_000 <= int(port) < 30_000 and int(port) == 10_000 + 60003 % 20_000
    assert not (tmp_path / "calls").exists()


def test_a_folder_that_is_given_stays_and_the_command_may_be_a_container(slurm, tmp_path):
    assert slurm("run_dir=/shared/x", CAPKIT="apptainer exec --nv capkit.sif capkit") == 0
    assert words(tmp_path)[1:] == ["apptainer", "exec", "--nv", "capkit.sif", "capkit", "run_dir=/shared/x"]


def test_a_task_of_an_array_takes_its_line_of_the_sweep_and_its_own_folder(slurm, tmp_path):
    (tmp_path / "sweep.txt").write_text("seed=0\nseed=1 'images=my photos'\n")
    assert slurm("trainer=gpu", SWEEP="sweep.txt") == 2  # no array
    assert not (tmp_path / "words").exists()
    assert slurm("trainer=gpu", **ARRAY | {"SLURM_ARRAY_TASK_ID": "2"}, SWEEP="sweep.txt") == 0
    assert words(tmp_path)[2:] == ["trainer=gpu", "seed=1", "images=my photos", "run_dir=runs/mle-2"]
    assert slurm("trainer=gpu", **ARRAY, SWEEP="sweep.txt") == 2


def test_a_task_of_an_array_of_curate_is_a_shard(slurm, tmp_path):
    """Elements 3 and 5 of a hundred, started again, would be shards 3 and 5 of two."""
    array = ARRAY | {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "99"}
    assert slurm("curate", "out=vcb", **array, SLURM_ARRAY_TASK_COUNT="100") == 0
    assert words(tmp_path)[2:] == ["curate", "out=vcb", "shard=3", "num_shards=100", "run_dir=runs/mle-3"]
    again = array | {"SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_MAX": "5", "SLURM_ARRAY_TASK_COUNT": "2"}
    assert slurm("curate", "out=vcb", **again) == 2
    assert slurm("curate", "num_shards=100", "out=vcb", **again) == 0
    assert words(tmp_path)[2:] == ["curate", "num_shards=100", "out=vcb", "shard=3", "run_dir=runs/mle-3"]
    (tmp_path / "sweep.txt").write_text("out=a\nout=b\nout=c\n")  # runs of their own, no shards
    assert slurm("curate", **again, SWEEP="sweep.txt") == 0
    assert words(tmp_path)[2:] == ["curate", "out=c", "run_dir=runs/mle-3"]


def test_a_run_that_wants_to_go_on_is_requeued_and_one_that_failed_is_not(slurm, tmp_path):
    assert slurm(SRUN_STATUS="1") == 1
    assert not (tmp_path / "calls").exists()
    assert slurm(SRUN_STATUS="75") == 75
    assert (tmp_path / "calls").read_text() == "scontrol requeue 60003\n"


def test_a_task_of_an_array_is_requeued_without_the_others(slurm, tmp_path):
    assert slurm(SRUN_STATUS="75", **ARRAY) == 75
    assert (tmp_path / "calls").read_text() == "scontrol requeue 60003_3\n"


@pytest.mark.parametrize("status", ["138", "143"])
def test_a_curate_that_slurm_ended_is_requeued_and_a_run_is_not(slurm, tmp_path, status):
    """128 + SIGUSR1, the warning, or SIGTERM: a run saves and says 75, curate dies of them, its answers kept."""
    assert slurm("trainer=ddp", SRUN_STATUS=status) == int(status)
    assert slurm("curate", "out=vcb", SRUN_STATUS="1") == 1
    assert not (tmp_path / "calls").exists()
    assert slurm("curate", "out=vcb", SRUN_STATUS=status) == int(status)
    assert (tmp_path / "calls").read_text() == "scontrol requeue 60003\n"


def test_the_batch_script_is_warned_in_time_requeued_and_appends_to_one_log():
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", SBATCH.read_text(), flags=re.MULTILINE))
    assert options["signal"] == "USR1@120" and options["open-mode"] == "append" and "requeue" in options


def test_torchrun_is_told_of_all_machines_and_its_failure_passed_on(start, tmp_path):
    assert start("torchrun.sh", "run_dir=r", NODES="2", MASTER_ADDR="10.0.0.1", PROCESSES="4").wait(30) == 3
    told = words(tmp_path)
    assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-endpoint=10.0.0.1:29500"} <= set(told)
    assert told[-2:] == ["capkit", "run_dir=r"]


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [([], {}, "give run_dir=PATH"), (["run_dir=r"], {"NODES": "2"}, "MASTER_ADDR must be")],
)
def test_torchrun_is_not_started_without_what_the_machines_have_to_share(start, tmp_path, arguments, environment, told):
    started = start("torchrun.sh", *arguments, **environment)
    assert told in started.communicate(timeout=30)[1] and started.returncode == 2
    assert not (tmp_path / "words").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_torchruns_status_after_a_signal_says_that_the_same_command_goes_on(start, tmp_path, number):
    started = start("torchrun.sh", "run_dir=r", WAITS="yes")
    for _ in range(300):
        if (tmp_path / "waiting").exists():
            break
        time.sleep(0.1)
    started.send_signal(number)
    assert started.wait(30) == 75
