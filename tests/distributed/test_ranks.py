import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from capkit.config.arguments import parse
from capkit.config.compose import compose_config
from capkit.config.instantiate import build
from capkit.distributed import launcher as ranks
from capkit.errors import UsageError
from capkit.fault_tolerance.stop_signal import NOTHING_BEGUN
from capkit.run.folder import RunFolder


def rank_of(monkeypatch, tmp_path, rank, task):
    """Runs `task` as one rank does, and gives the status that it ends with."""
    monkeypatch.setattr(ranks, "task_of_a_test", task, raising=False)
    cfg = {"task": {"_target_": "capkit.distributed.launcher.task_of_a_test"}}
    cfg["scheduler"] = {"_target_": "capkit.optim.schedules.Noam", "warmup": 0}
    OmegaConf.save(OmegaConf.create(cfg), tmp_path / "config.yaml")
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as ended:
        ranks.main(str(tmp_path / "config.yaml"))
    return ended.value.code


def fail(error):
    def task(cfg):
        raise error

    return task


def test_of_all_ranks_errors_the_parent_tells_the_first_and_no_traceback_of_a_users_mistake(
    tmp_path, monkeypatch, capsys
):
    for rank in ("1", "0"):
        assert rank_of(monkeypatch, tmp_path, rank, lambda cfg: instantiate(cfg.scheduler)) == 2
    assert capsys.readouterr().err == ""
    ranks.tell_first_error(tmp_path)
    told = capsys.readouterr().err
    assert "Noam: warmup: expected" in told and told.startswith("error: ") and told.count("\n") == 1


def test_an_error_that_follows_from_another_ranks_end_is_not_the_one_that_is_told(tmp_path, monkeypatch, capsys):
    assert rank_of(monkeypatch, tmp_path, "0", fail(RuntimeError("Connection closed by peer [127.0.0.1]"))) == 1
    assert rank_of(monkeypatch, tmp_path, "1", fail(KeyError("a defect"))) == 1
    ranks.tell_first_error(tmp_path)
    told = capsys.readouterr().err
    assert told.count("Traceback") == 1 and told.endswith("KeyError: 'a defect'\n")


@pytest.mark.parametrize(("rank", "told"), [("0", f"{NOTHING_BEGUN}\n"), ("1", "")])
def test_a_rank_that_ctrl_c_ends_before_it_listens_says_so_once(tmp_path, monkeypatch, capsys, rank, told):
    assert rank_of(monkeypatch, tmp_path, rank, fail(KeyboardInterrupt())) == 130
    ranks.tell_first_error(tmp_path)
    output = capsys.readouterr()
    assert (output.out, output.err) == (told, "")


@pytest.mark.parametrize(
    ("trainer", "gpu", "precision"),
    [
        ({"accelerator": "auto", "precision": None}, True, "bf16-mixed"),
        ({"accelerator": "auto"}, True, "bf16-mixed"),
        ({"accelerator": "auto", "precision": "32-true"}, True, "32-true"),
        ({"accelerator": "auto", "precision": None}, False, None),
        ({"accelerator": "cpu"}, True, None),
        ({"accelerator": "gpu"}, True, None),
    ],
)
def test_a_trainer_that_leaves_it_open_computes_in_bfloat16_where_a_gpu_can(monkeypatch, trainer, gpu, precision):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: gpu)
    node = OmegaConf.create(trainer)
    ranks.choose_precision(node)
    assert node.get("precision") == precision


def test_the_default_trainer_leaves_its_precision_open_and_keeps_float32_on_a_cpu(monkeypatch):
    config = compose_config(parse([])).config
    assert (config.trainer.accelerator, config.trainer.precision) == ("auto", None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ranks.choose_precision(config.trainer)
    assert str(build(config.trainer, devices=1, logger=False).precision) == "32-true"


def test_a_changed_config_is_refused_before_ranks_are_started(tmp_path):
    RunFolder(tmp_path).open({"seed": 0}, trains=True)
    RunFolder(tmp_path).append(1, {"train/loss": 1.0})
    cfg = {"trainer": {"devices": 2}, "data": {}, "run_dir": str(tmp_path), "seed": 1}
    with pytest.raises(UsageError, match="seed: 0 -> 1"):
        ranks.start_ranks(OmegaConf.create(cfg), trains=True)


def test_a_changed_config_is_taken_where_training_has_made_no_step(tmp_path):
    RunFolder(tmp_path).open({"seed": 0}, trains=True)
    cfg = OmegaConf.create({"trainer": {"devices": 1}, "data": {}, "run_dir": str(tmp_path), "seed": 1})
    assert not ranks.start_ranks(cfg, trains=True)
    with pytest.raises(UsageError, match="seed: 0 -> 1"):
        ranks.start_ranks(cfg)


def test_a_function_of_the_program_around_is_refused_before_ranks_are_started_that_lack_it():
    cfg = OmegaConf.create({"trainer": {"devices": 2}, "data": {}, "run_dir": None, "function": "__main__.short"})
    with pytest.raises(UsageError, match=r"__main__\.short: expected a function that each of 2 processes can import"):
        ranks.start_ranks(cfg)
    cfg.trainer.devices = 1
    assert not ranks.start_ranks(cfg)


def test_a_dry_run_is_one_process_whatever_the_run_would_be():
    cfg = OmegaConf.create({"trainer": {"devices": 8}, "data": {}, "dry_run": True, "run_dir": None})
    assert not ranks.start_ranks(cfg)
    assert cfg.trainer.devices == 8


@pytest.mark.parametrize(
    ("devices", "batch_size", "expected"), [(1, 32, 1), (2, 32, 2), ([0, 1, 2], 33, 3), ("auto", 33, 1)]
)
def test_devices_are_counted_as_the_config_says(devices, batch_size, expected):
    trainer = OmegaConf.create({"accelerator": "cpu", "devices": devices})
    assert ranks.num_processes(trainer, batch_size) == expected


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),  # the batch script itself
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}, None),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"}, (2, 4)),
        ({"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3", "RANK": "4"}, (2, 3)),
    ],
)
def test_ranks_are_counted_as_srun_or_torchrun_started_them(monkeypatch, environment, found):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ranks.ranks_from_outside() == found
    alone = "SLURM_NTASKS" in environment and found is None
    assert bool(ranks.cluster_environment()) == alone
    if found is not None:
        cfg = OmegaConf.create({"trainer": {"devices": "auto"}, "data": {}})
        assert not ranks.start_ranks(cfg)
        assert (cfg.trainer.num_nodes, cfg.trainer.devices, cfg.trainer.strategy) == (*found, "ddp")


def test_uneven_tasks_are_refused(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    with pytest.raises(UsageError, match="the same number of tasks on each node; got 3 tasks on 2 nodes"):
        ranks.ranks_from_outside()


def test_several_machines_without_a_launcher_are_refused_with_the_way_out():
    cfg = OmegaConf.create({"trainer": {"devices": 1, "num_nodes": 2}, "data": {}})
    with pytest.raises(UsageError, match=r"launch/slurm\.sbatch or launch/torchrun\.sh"):
        ranks.start_ranks(cfg)


WAITING = """
import os, sys, time
from pathlib import Path
from capkit.fault_tolerance.stop_signal import listen, stoppable

@stoppable()
def run(cfg):
    listen(int(os.environ["RANK"]))
    Path(cfg.run_dir, "ready-" + os.environ["RANK"]).write_text("lightning" if "lightning" in sys.modules else "")
    time.sleep(60)
"""
STARTING = """
from omegaconf import OmegaConf
from capkit.distributed.launcher import start_ranks
start_ranks(OmegaConf.load("config.yaml"))
"""


@pytest.mark.integration
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_to_the_process_that_starts_the_ranks_reach_them_and_its_status_is_theirs(tmp_path, number, status):
    (tmp_path / "waiting.py").write_text(WAITING)
    cfg = {"task": {"_target_": "waiting.run"}, "name": "x", "run_dir": str(tmp_path), "data": {}}
    OmegaConf.save(OmegaConf.create({**cfg, "trainer": {"devices": 2, "strategy": "ddp"}}), tmp_path / "config.yaml")
    folders = [str(tmp_path), str(Path(ranks.__file__).parents[2]), *os.environ.get("PYTHONPATH", "").split(":")]
    environment = {**os.environ, "PYTHONPATH": ":".join(filter(None, folders))}
    with subprocess.Popen(
        [sys.executable, "-c", STARTING],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    ) as parent:
        for _ in range(1200):
            if len(list(tmp_path.glob("ready-*"))) == 2:
                break
            time.sleep(0.1)
        parent.send_signal(number)
        told, errors = parent.communicate(timeout=60)
    assert parent.returncode == status
    assert told.count("stopped by") == 1
    assert "Traceback" not in errors and "elastic" not in errors
    # What starts a rank imports no Lightning: where the task needs none, this halves the time of a start.
    assert [file.read_text() for file in tmp_path.glob("ready-*")] == ["", ""]
