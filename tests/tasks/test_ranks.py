import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from capkit.errors import UsageError
from capkit.stop_signal import STOPPED_STATUS
from capkit.tasks import ranks


def test_a_rank_tells_a_constructors_usage_error_without_a_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ranks, "build_noam", lambda cfg: instantiate(cfg.scheduler), raising=False)
    cfg = {"task": {"_target_": "capkit.tasks.ranks.build_noam"}}
    cfg["scheduler"] = {"_target_": "capkit.schedules.Noam", "warmup": 0}
    OmegaConf.save(OmegaConf.create(cfg), tmp_path / "config.yaml")
    for rank, told in (("0", "Noam needs a warm-up"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as ended:
            ranks.main(str(tmp_path / "config.yaml"))
        assert ended.value.code == 2
        assert told in (error := capsys.readouterr().err) and "Traceback" not in error


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
    with pytest.raises(UsageError, match="as many tasks as the others; got 3 tasks on 2 nodes"):
        ranks.ranks_from_outside()


def test_several_machines_without_a_launcher_are_refused_with_the_way_out():
    cfg = OmegaConf.create({"trainer": {"devices": 1, "num_nodes": 2}, "data": {}})
    with pytest.raises(UsageError, match=r"launch/slurm\.sbatch or launch/torchrun\.sh"):
        ranks.start_ranks(cfg)


WAITING = """
import os, time
from pathlib import Path
from capkit.stop_signal import listen, stoppable

@stoppable()
def run(cfg):
    listen(int(os.environ["RANK"]))
    Path(cfg.run_dir, "ready-" + os.environ["RANK"]).touch()
    time.sleep(60)
"""
STARTING = """
from omegaconf import OmegaConf
from capkit.tasks.ranks import start_ranks
start_ranks(OmegaConf.load("config.yaml"))
"""


@pytest.mark.slow
def test_signals_to_the_process_that_starts_the_ranks_reach_them_and_its_status_is_theirs(tmp_path):
    (tmp_path / "waiting.py").write_text(WAITING)
    cfg = {"task": {"_target_": "waiting.run"}, "name": "x", "run_dir": str(tmp_path), "data": {}}
    OmegaConf.save(OmegaConf.create({**cfg, "trainer": {"devices": 2, "strategy": "ddp"}}), tmp_path / "config.yaml")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(ranks.__file__).parents[2]}"}
    with subprocess.Popen(
        [sys.executable, "-c", STARTING], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        for _ in range(1200):
            if len(list(tmp_path.glob("ready-*"))) == 2:
                break
            time.sleep(0.1)
        parent.send_signal(signal.SIGUSR1)
        parent.send_signal(signal.SIGTERM)
        told, _ = parent.communicate(timeout=60)
    assert parent.returncode == STOPPED_STATUS
    assert told.count("stopped by SIG") == 1
