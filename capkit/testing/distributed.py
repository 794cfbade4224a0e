"""Helpers for tests in several processes; part of the package, so that users' own tests can use them."""

import multiprocessing
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import TorchElasticEnvironment

from capkit.distributed.collectives import is_distributed, world_size

NO_RESULT = "no result: hung or killed"
# Imported once, for all ranks of all calls; the modules that train bring transformers and peft.
PRELOADED = [
    "capkit.testing.distributed",
    "lightning.pytorch",
    "pytest",
    "capkit.train.mle_module",
    "capkit.train.rl.module",
    "capkit.train.dual_encoder_module",
]


def _run_rank(func: Callable[..., Any], rank: int, world_size: int, folder: str, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    store = dist.FileStore(f"{folder}/store", world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    try:
        outcome: tuple[bool, Any] = (True, func(*args))
    except BaseException:
        outcome = (False, traceback.format_exc())
    Path(folder, f"{rank}.pkl").write_bytes(pickle.dumps(outcome))
    if outcome[0]:
        dist.barrier()
        dist.destroy_process_group()


def run_distributed(func: Callable[..., Any], world_size: int, *args: Any, timeout_s: float | int = 120) -> list[Any]:
    """Run a module-level function in `world_size` gloo processes on the CPU; returns each rank's picklable result.

    Raises RuntimeError with the rank's own traceback if one fails or does not finish in time.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_run_rank, args=(func, rank, world_size, folder, args)) for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout_s)
            if process.is_alive() or process.exitcode:
                for other in processes:
                    other.kill()
        outcomes = [_outcome(Path(folder, f"{rank}.pkl")) for rank in range(world_size)]
    # A rank that failed on its own explains the failure; others may have been killed for it, or lost their connection.
    failed = [rank for rank, (done, _) in enumerate(outcomes) if not done]
    for rank in sorted(failed, key=lambda rank: outcomes[rank][1] == NO_RESULT):
        raise RuntimeError(f"rank {rank} of {world_size} failed:\n{outcomes[rank][1]}")
    return [result for _, result in outcomes]


def _outcome(path: Path) -> tuple[bool, Any]:
    return pickle.loads(path.read_bytes()) if path.exists() else (False, NO_RESULT)


def bare_trainer(**options: Any) -> pl.Trainer:
    """One epoch on the CPU, over the ranks that `run_distributed` started, by DDP; no logger, checkpoints or bars."""
    defaults = dict(
        accelerator="cpu",
        devices=world_size(),
        strategy="ddp" if is_distributed() else "auto",
        plugins=[TorchElasticEnvironment()] if is_distributed() else None,
        max_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    return pl.Trainer(**{**defaults, **options})
