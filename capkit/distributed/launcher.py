"""One process per device: started here when a run wants several, unless torchrun or srun started them already."""

import ctypes
import importlib
import json
import logging
import os
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
from lightning.pytorch.plugins.environments import LightningEnvironment
from omegaconf import DictConfig, OmegaConf

from capkit.config.instantiate import plain
from capkit.distributed.slurm import share_main_address, srun_ranks
from capkit.errors import MEMORY_STATUS, UsageError, known_error
from capkit.fault_tolerance.heartbeats import attempts, read_verdict
from capkit.fault_tolerance.stop_signal import INTERRUPTED_STATUS, NOTHING_BEGUN, Stopped, heard_signals, status_after
from capkit.fault_tolerance.watchdog import follows_from_another, status_of
from capkit.run.folder import RunFolder, default_run_dir
from capkit.utils.console import close_phase, command_name, open_phase, phase
from capkit.utils.files import write_atomically

PR_SET_PDEATHSIG = 1  # Linux: prctl(2)


def num_processes(trainer: DictConfig, batch_size: int) -> int:
    """The devices of this machine that the trainer's config asks for.

    `devices: auto` is one GPU; without a GPU it is 4, 2 or 1 processes on the CPU, as many as there are cores and as
    divide the batch. Two processes of one thread are faster than one of two threads on small models.
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
    """bf16-mixed where the trainer leaves device and precision open, and the device is a GPU that computes in bfloat16.

    float32 elsewhere: on a CPU, and on GPUs that only emulate it.
    """
    is_open = trainer.get("accelerator", "auto") == "auto" and trainer.get("precision") is None
    if is_open and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False):
        OmegaConf.update(trainer, "precision", "bf16-mixed", force_add=True)


def require_gpu(trainer: DictConfig) -> None:
    """Raises UsageError where the trainer wants a GPU and torch sees none: what only torch can tell."""
    accelerator = trainer.get("accelerator", "auto")
    is_there = torch.cuda.is_available() or (accelerator == "gpu" and torch.backends.mps.is_available())
    if accelerator in ("gpu", "cuda") and not is_there:
        raise UsageError(
            f"trainer.accelerator={accelerator}: expected a GPU, got none that torch {torch.__version__} sees (built "
            f"for CUDA {torch.version.cuda}); see what nvidia-smi says, install a torch for it, or give trainer=cpu"
        )


def start_ranks(cfg: DictConfig) -> bool:
    """Runs this config in one process per device and returns True; False where this process is a rank itself.

    The config is decided once and handed over as a file, the run folder's name included: all ranks agree on both. Ends
    this process with a failed rank's exit status. Where torchrun or srun started the ranks, the trainer has as many.
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
    if cfg.get("dry_run"):  # one process says what all of them would do
        return False
    if cfg.trainer.get("num_nodes", 1) > 1:
        raise UsageError(
            "several machines are wanted; start the ranks with launch/slurm.sbatch or launch/torchrun.sh, which count "
            "them, and leave trainer.num_nodes alone"
        )
    if cfg.run_dir is not None:
        RunFolder(cfg.run_dir).check(plain(cfg), trains=cfg.task["_target_"].startswith("capkit.tasks.fit"))
    if processes == 1:
        return False
    _choose_strategy(cfg, processes)
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ["CAPKIT_COMMAND"] = command_name()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of the ranks: it tells each attempt to connect
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
            signals_to_handle="SIGHUP,SIGQUIT",  # elastic would end the ranks: others are passed on to them
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
                if -failure.exitcode in passed_on:  # it did not listen yet: nothing was lost
                    raise _stopped_before_start(passed_on[0])
                tell_first_error(Path(folder))
                status = _status(failure, Path(resolved["run_dir"]), earlier)
                if status != MEMORY_STATUS:
                    raise SystemExit(status)
                # Ranks that go on take smaller micro-batches: capkit/train/callbacks/oom.py.
                resolved["resume"] = resolved["resume"] or "auto"
                OmegaConf.save(OmegaConf.create(resolved), file)


def ranks_from_outside() -> tuple[int, int] | None:
    """(machines, processes on each) where torchrun or srun started this process; None where they did not."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        per_node = int(os.environ["LOCAL_WORLD_SIZE"])
        return int(os.environ["WORLD_SIZE"]) // per_node, per_node
    return srun_ranks()


def cluster_environment() -> dict[str, Any]:
    """What Lightning's Trainer is to be told: in a SLURM job it waits for tasks, also where srun started none."""
    alone = "SLURM_NTASKS" in os.environ and "RANK" not in os.environ and ranks_from_outside() is None
    return {"plugins": [LightningEnvironment()]} if alone else {}


def _choose_strategy(cfg: DictConfig, processes: int) -> None:
    if processes > 1 and cfg.trainer.get("strategy", "auto") == "auto":
        OmegaConf.update(cfg, "trainer.strategy", "ddp", force_add=True)


@contextmanager
def _until_rank_0_speaks(folder: Path, processes: int) -> Iterator[None]:
    """The phase of this process ends when rank 0 begins its own: two of them would draw over each other."""
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
    """What asks a run to stop goes to the ranks, whose ids lie in `folder`. Gives the signals that came."""
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
    """That of the ranks' verdict, where they came to one; else that of the rank that ended first."""
    for folder in attempts(run_dir):
        verdict = read_verdict(folder / "verdicts.jsonl") if folder not in earlier else None
        if verdict is not None:
            return verdict.status
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        print(f"error: rank {failure.local_rank} was ended by {name}, and with it all ranks", file=sys.stderr)
    return failure.exitcode if failure.exitcode > 0 else 1


def tell_first_error(folder: Path) -> None:
    """Of the errors that ranks left in `folder`, the one that the others may follow from."""
    left = [(json.loads(file.read_text(encoding="utf-8")), file.stat().st_mtime_ns) for file in folder.glob("*.error")]
    if left:
        error, _ = min(left, key=lambda pair: (pair[0]["follows"], pair[1]))
        print(error["message"], file=sys.stderr, flush=True)


def main(file: str) -> None:
    """One rank: runs the task of a resolved config. It leaves its error to its parent, which tells one of them.

    What a watchdog has told already is not left.
    """
    _end_with_launcher()
    rank, folder = os.environ["RANK"], Path(file).parent
    write_atomically(folder / f"{rank}.pid", str(os.getpid()))
    cfg = OmegaConf.load(file)
    assert isinstance(cfg, DictConfig)
    module, _, name = cfg.task["_target_"].rpartition(".")
    try:
        with phase("starting"):
            task = getattr(importlib.import_module(module), name)
        task(cfg)
    except KeyboardInterrupt:  # nobody listened yet
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
    """A launcher that is killed cannot end its ranks: they would go on in a folder that the next attempt writes to."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
