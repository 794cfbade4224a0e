"""Starts one process per device, unless torchrun or srun already did."""

import ctypes
import importlib
import json
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from capkit.config.instantiate import plain
from capkit.distributed.slurm import share_main_address, srun_ranks
from capkit.errors import INTERRUPTED_STATUS, MEMORY_STATUS, UsageError, known_error
from capkit.fault_tolerance.heartbeats import attempts, read_verdict
from capkit.fault_tolerance.stop_signal import NOTHING_BEGUN, Stopped, heard_signals, status_after
from capkit.fault_tolerance.watchdog import follows_from_another, status_of
from capkit.run.folder import RunFolder, default_run_dir
from capkit.utils.console import close_phase, command_line, command_name, loudness, open_phase, phase
from capkit.utils.files import write_atomically
from capkit.utils.interrupts import held_interrupts

PR_SET_PDEATHSIG = 1  # Linux: prctl(2)


def num_processes(trainer: DictConfig, batch_size: int) -> int:
    """Number of processes that the trainer's config asks for on this machine.

    `devices: auto` means one GPU. Without a GPU it means 4, 2 or 1 CPU processes: the most that the cores allow and
    that divide the batch, since for small models two processes of one thread are faster than one of two threads.
    """
    devices, accelerator = trainer.get("devices", 1), trainer.get("accelerator", "auto")
    if devices not in (-1, "-1", "auto"):
        return int(devices) if isinstance(devices, int | str) else len(devices)
    has_gpu = accelerator != "cpu" and torch.cuda.is_available()
    if has_gpu:
        return 1 if devices == "auto" else torch.cuda.device_count()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return next(n for n in (4, 2, 1) if n <= cores and batch_size % n == 0)


def choose_precision(trainer: DictConfig) -> None:
    """Set bf16-mixed if the config leaves accelerator and precision open and the GPU supports bfloat16 natively.

    Otherwise float32 stays: on CPUs, and on GPUs that only emulate bfloat16.
    """
    is_open = trainer.get("accelerator", "auto") == "auto" and trainer.get("precision") is None
    if is_open and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False):
        OmegaConf.update(trainer, "precision", "bf16-mixed", force_add=True)


def require_gpu(trainer: DictConfig) -> None:
    """Raises UsageError if the trainer needs a GPU and torch sees none."""
    accelerator = trainer.get("accelerator", "auto")
    is_there = torch.cuda.is_available() or (accelerator == "gpu" and torch.backends.mps.is_available())
    if accelerator in ("gpu", "cuda") and not is_there:
        raise UsageError(
            f"trainer.accelerator={accelerator}: expected a GPU, got none that torch {torch.__version__} sees (built "
            f"for CUDA {torch.version.cuda}); check nvidia-smi, install a matching torch, or use trainer=cpu"
        )


def start_ranks(cfg: DictConfig, trains: bool = False) -> bool:
    """Run this config in one process per device and return True; return False if this process is itself a rank.

    The config, with its choices and the run folder's name resolved, reaches all ranks as one file, so that they agree.
    If a rank fails, this process exits with its status. Under torchrun or srun, `trainer.devices` and `num_nodes` are
    set to what was started. `trains` is what `RunFolder.check` takes.
    """
    require_gpu(cfg.trainer)
    choose_precision(cfg.trainer)
    outside = ranks_from_outside()
    if outside is not None:
        nodes, cfg.trainer.devices = outside
        if nodes != cfg.trainer.get("num_nodes", 1):
            OmegaConf.update(cfg, "trainer.num_nodes", nodes, force_add=True)
        _choose_strategy(cfg, nodes * cfg.trainer.devices)
        share_main_address()
        return False
    if "RANK" in os.environ:
        return False
    processes = num_processes(cfg.trainer, cfg.data.get("batch_size", 64))
    cfg.trainer.devices = processes
    if cfg.get("dry_run"):  # a dry run needs one process only
        return False
    if cfg.trainer.get("num_nodes", 1) > 1:
        raise UsageError(
            "trainer.num_nodes above 1: expected ranks started on each machine, got a single process; start them with "
            "launch/slurm.sbatch or launch/torchrun.sh, which set the number of machines, and omit trainer.num_nodes"
        )
    if cfg.run_dir is not None:
        RunFolder(cfg.run_dir).check(plain(cfg), trains=trains)
    if processes == 1:
        return False
    _refuse_names_of_main(cfg, processes)
    _choose_strategy(cfg, processes)
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ["CAPKIT_COMMAND"] = command_name()
    os.environ["CAPKIT_WORDS"] = command_line()
    os.environ["CAPKIT_OUTPUT"] = loudness()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # ranks would log each attempt to connect
    resolved = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(resolved, dict)
    resolved["run_dir"] = str(cfg.run_dir or default_run_dir(cfg.name))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        OmegaConf.save(OmegaConf.create(resolved), file)
        launch = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=0.5,
            signals_to_handle="SIGHUP,SIGQUIT",  # on others, elastic would kill the ranks; here they are forwarded
        )
        with _passing_on_signals(Path(folder)) as passed_on:
            while True:
                earlier = attempts(Path(resolved["run_dir"]))
                for ended in [*Path(folder).glob("*.pid"), *Path(folder).glob("*.error")]:
                    ended.unlink()
                try:
                    with _until_rank_0_speaks(Path(folder), processes):
                        elastic_launch(launch, sys.executable)("-m", "capkit.distributed.launcher", str(file))
                    return True
                except ChildFailedError as error:
                    _, failure = error.get_first_failure()
                if -failure.exitcode in passed_on:  # died from the signal before it handled it: no work was lost
                    raise _stopped_before_start(passed_on[0])
                tell_first_error(Path(folder))
                status = _status(failure, Path(resolved["run_dir"]), earlier)
                if status != MEMORY_STATUS:
                    raise SystemExit(status)
                # Resumed ranks use smaller micro-batches: capkit/train/callbacks/oom.py.
                resolved["resume"] = resolved["resume"] or "auto"
                OmegaConf.save(OmegaConf.create(resolved), file)


def ranks_from_outside() -> tuple[int, int] | None:
    """(machines, processes per machine) if torchrun or srun started this process, else None."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        per_node = int(os.environ["LOCAL_WORLD_SIZE"])
        return int(os.environ["WORLD_SIZE"]) // per_node, per_node
    return srun_ranks()


def cluster_environment() -> dict[str, Any]:
    """Trainer arguments that keep Lightning from waiting for SLURM tasks in a job whose ranks srun did not start."""
    # Imported here, for this module starts every rank and Lightning takes as long to import as torch.
    from lightning.pytorch.plugins.environments import LightningEnvironment

    alone = "SLURM_NTASKS" in os.environ and "RANK" not in os.environ and ranks_from_outside() is None
    return {"plugins": [LightningEnvironment()]} if alone else {}


def _choose_strategy(cfg: DictConfig, processes: int) -> None:
    if processes > 1 and cfg.trainer.get("strategy", "auto") == "auto":
        OmegaConf.update(cfg, "trainer.strategy", "ddp", force_add=True)


def _refuse_names_of_main(cfg: DictConfig, processes: int) -> None:
    """Raises UsageError for a function of the notebook or script around: a rank's own `__main__` is another one."""
    if found := re.search(r"(?<![\w.])__main__\.\w+", OmegaConf.to_yaml(cfg)):
        raise UsageError(
            f"{found[0]}: expected a function that each of {processes} processes can import, got one of this "
            "process alone; write it into a file (in a notebook by %%writefile my_rewards.py) and give "
            "my_rewards.NAME, or train in one process with trainer.devices=1"
        )


@contextmanager
def _until_rank_0_speaks(folder: Path, processes: int) -> Iterator[None]:
    """Close this process's progress phase when rank 0 opens its own, so that only one of them draws."""
    starting = open_phase(f"starting {processes} processes")
    ended = threading.Event()

    def wait() -> None:
        while not ended.wait(0.1) and not (folder / "0.pid").exists():
            pass
        close_phase(starting)

    waiting = threading.Thread(target=wait, name="starting", daemon=True)
    waiting.start()
    try:
        yield
    finally:
        ended.set()
        waiting.join()


@contextmanager
def _passing_on_signals(folder: Path) -> Iterator[list[int]]:
    """Forward stop signals to the ranks, whose process ids are in `folder`. Yields the list of signals received."""
    passed_on: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        passed_on.append(number)
        ranks = [int(file.read_text()) for file in folder.glob("*.pid")]
        if not ranks:
            raise _stopped_before_start(number)
        for pid in ranks:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, pass_on) for number in heard_signals()} if is_main else {}
    try:
        yield passed_on
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopped_before_start(number: int) -> Stopped:
    status = status_after(signal.Signals(number).name)
    if status == INTERRUPTED_STATUS:
        print(NOTHING_BEGUN, flush=True)
    return Stopped(status)


def _status(failure: Any, run_dir: Path, earlier: list[Path]) -> int:
    """Exit status of the ranks' verdict if they reached one, else of the rank that failed first."""
    for folder in attempts(run_dir):
        verdict = read_verdict(folder / "verdicts.jsonl") if folder not in earlier else None
        if verdict is not None:
            return verdict.status
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        print(f"error: rank {failure.local_rank} was killed by {name}; all ranks end", file=sys.stderr)
    return failure.exitcode if failure.exitcode > 0 else 1


def tell_first_error(folder: Path) -> None:
    """Print the earliest error file in `folder`, preferring errors that are not consequences of another rank's."""
    left = [(json.loads(file.read_text(encoding="utf-8")), file.stat().st_mtime_ns) for file in folder.glob("*.error")]
    if left:
        error, _ = min(left, key=lambda pair: (pair[0]["follows"], pair[1]))
        print(error["message"], file=sys.stderr, flush=True)


def main(file: str) -> None:
    """Entry point of a rank: run the task of a resolved config.

    An error is written to a file, and the parent prints one rank's error. Errors that a watchdog printed are not
    written.
    """
    _end_with_launcher()
    rank, folder = os.environ["RANK"], Path(file).parent
    write_atomically(folder / f"{rank}.pid", str(os.getpid()))
    cfg = OmegaConf.load(file)
    assert isinstance(cfg, DictConfig)
    module, _, name = cfg.task["_target_"].rpartition(".")
    try:
        with phase("starting"), held_interrupts():
            task = getattr(importlib.import_module(module), name)
        task(cfg)
    except KeyboardInterrupt:  # before the signal handlers were installed
        if rank == "0":
            print(NOTHING_BEGUN, flush=True)
        raise SystemExit(INTERRUPTED_STATUS) from None
    except Exception as error:
        known = known_error(error)
        message = "".join(traceback.format_exception(error)).rstrip() if known is None else f"error: {known}"
        left = {"message": message, "follows": follows_from_another(error)}
        write_atomically(folder / f"{rank}.error", json.dumps(left))
        raise SystemExit(status_of(error)) from None


def _end_with_launcher() -> None:
    """Have the kernel kill this rank if its launcher dies: it would keep writing to the next attempt's run folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
