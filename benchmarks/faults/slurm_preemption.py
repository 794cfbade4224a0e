"""A run on two nodes is preempted by a job of higher priority, comes back by itself and ends as the undisturbed one.

    python -m benchmarks.faults.slurm_preemption --out FOLDER [--launcher] [--low PARTITION] [--high PARTITION]

Wants a SLURM of two nodes whose partition `low` is preempted (REQUEUE, with a grace time) by its partition `high`. Both
runs train under DeepSpeed ZeRO-2 on the CPU, one task a node, through launch/slurm.sbatch or `capkit launcher=slurm`.
Prints what was lost, and whether losses, captions and final weights are equal to the last bit; ends with 1 where they
are not.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from capkit.checkpoint.files import load_checkpoint
from capkit.run.folder import RunFolder

ROOT = Path(__file__).parents[2]
CAPKIT = str(Path(sys.executable).with_name("capkit"))
STEPS = 300
CONFIG = [
    "trainer=deepspeed_2_cpu", "data.batch_size=32", f"max_steps={STEPS}", "val_every=100", "eval_limit=32",
    "controls=0", "metric=[bleu,cider]", "callback.recorder.every_steps=5", "data.train.count=512",
    "data.val.count=64", "data.test.count=64",
]  # fmt: skip
TIMED = ("time", "attempt", "train/images_per_second")


def overrides(out: Path, name: str) -> list[str]:
    caches = [f"data.{split}.cache_dir={out / 'scenes'}" for split in ("train", "val", "test")]
    return [*CONFIG, *caches, f"run_dir={out / name}"]


def submit(out: Path, name: str, partition: str) -> str:
    """The number of the job that runs into out/NAME."""
    environment = {**os.environ, "CAPKIT": CAPKIT}
    command = ["sbatch", "--parsable", f"--job-name={name}", "--nodes=2", "--ntasks-per-node=1", "--time=30"]
    command += [f"--partition={partition}", f"--output={out / name}.log", str(ROOT / "launch" / "slurm.sbatch")]
    command += overrides(out, name)
    return subprocess.run(command, cwd=out, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def submit_by_launcher(out: Path, name: str, partition: str) -> tuple[str, subprocess.Popen[bytes]]:
    """The number of the job that runs into out/NAME/0, and the command that waits for it."""
    job_settings = {"nodes": 2, "tasks_per_node": 1, "timeout_min": 30, "partition": partition}
    command = [CAPKIT, "launcher=slurm", *(f"hydra.launcher.{key}={value}" for key, value in job_settings.items())]
    before = submitted(out / name)
    with (out / f"{name}.log").open("wb") as log:
        waiting = subprocess.Popen([*command, *overrides(out, name)], cwd=out, stdout=log, stderr=subprocess.STDOUT)
    wait_for("the job's number", lambda: submitted(out / name) > before or waiting.poll() is not None)
    if waiting.poll() is not None:
        raise SystemExit(f"{' '.join(command)} ended with {waiting.returncode}; see {out / name}.log")
    return (submitted(out / name) - before).pop(), waiting


def submitted(folder: Path) -> set[str]:
    """Jobs of this run: submitit keeps each in a folder of its number."""
    return {path.name for path in folder.glob(".submitit/*") if path.name.isdigit()}


def job(number: str) -> dict[str, str]:
    shown = subprocess.run(
        ["scontrol", "show", "job", number, "--oneliner"], check=True, capture_output=True, text=True
    ).stdout
    return dict(part.split("=", 1) for part in shown.split() if "=" in part)


def wait_for(what: str, is_there: Callable[[], bool], seconds: float = 1200.0) -> float:
    """How long it took."""
    start = time.monotonic()
    while not is_there():
        if time.monotonic() - start > seconds:
            raise SystemExit(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.2)
    return time.monotonic() - start


def ended(number: str) -> bool:
    state = job(number)["JobState"]
    if state in ("FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"):
        raise SystemExit(f"job {number}: {state}; see its log")
    return state == "COMPLETED"


def last_step(run: RunFolder) -> int:
    return max((row["step"] for row in run.rows() if "train/loss" in row), default=0)


def preempt(out: Path, high: str) -> str:
    """A job that wants both nodes for a moment."""
    command = ["sbatch", "--parsable", "--job-name=urgent", "--nodes=2", "--exclusive", f"--partition={high}"]
    command += ["--time=5", f"--output={out / 'urgent.log'}", "--wrap", "sleep 3"]
    return subprocess.run(command, cwd=out, check=True, capture_output=True, text=True).stdout.strip()


def final(run: RunFolder) -> dict[str, torch.Tensor]:
    return load_checkpoint(run.checkpoints / f"step-{STEPS:08d}.ckpt")["state_dict"]


def rows(run: RunFolder) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMED} for row in run.current_rows()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--launcher", action="store_true", help="by launcher=slurm instead of launch/slurm.sbatch")
    parser.add_argument("--low", default="low")
    parser.add_argument("--high", default="high")
    parser.add_argument("--at", type=int, nargs="*", default=[60, 180], help="steps at which the run is preempted")
    arguments = parser.parse_args()
    if shutil.which("sbatch") is None:
        raise SystemExit("there is no sbatch on PATH: this wants a SLURM cluster")
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)

    waiting: list[subprocess.Popen[bytes]] = []

    def start_job(name: str) -> tuple[str, RunFolder]:
        if not arguments.launcher:
            return submit(out, name, arguments.low), RunFolder(out / name)
        number, process = submit_by_launcher(out, name, arguments.low)
        waiting.append(process)
        return number, RunFolder(out / name / "0")

    number, once = start_job("undisturbed")
    print(f"job {number}, undisturbed: {wait_for('its end', lambda: ended(number)):.0f} s")

    number, again = start_job("preempted")
    start = time.monotonic()
    preemptions = []
    for step in arguments.at:
        wait_for(f"step {step}", lambda step=step: last_step(again) >= step)
        urgent = preempt(out, arguments.high)
        seconds = wait_for("the urgent job", lambda urgent=urgent: job(urgent)["JobState"] in ("RUNNING", "COMPLETED"))
        preemptions.append({"seen_step": last_step(again), "nodes_free_after_s": round(seconds, 1)})
        wait_for("the urgent job's end", lambda urgent=urgent: ended(urgent))
    wait_for("its end", lambda: ended(number))
    took = time.monotonic() - start

    resumed = [row["resumed_from"] for row in again.rows() if "resumed_from" in row]
    for preemption, step in zip(preemptions, resumed, strict=True):
        preemption["resumed_from"] = step
    ours, theirs = final(again), final(once)
    equal = {
        "weights": all(torch.equal(value, ours[name]) for name, value in theirs.items()) and len(ours) == len(theirs),
        "logged numbers": rows(again) == rows(once),
        "captions": (again.predictions / "test.json").read_text() == (once.predictions / "test.json").read_text(),
    }
    print(f"job {number}, preempted {len(preemptions)} times: {took:.0f} s, {job(number)['Restarts']} restarts")
    print(json.dumps({"preemptions": preemptions, "equal": equal}, indent=1))
    statuses = [process.wait(300) for process in waiting]
    if any(statuses):
        raise SystemExit(f"the commands that wait for the jobs ended with {statuses}; see their logs in {out}")
    return 0 if all(equal.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
