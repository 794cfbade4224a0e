"""Section startup: how long a command takes before it does anything, beside what its libraries take to be imported.

Each command is a process of its own. Bytecode and SceneWorld are cached by the first call (column "first s"); where
site-packages has no bytecode and cannot be written, give PYTHONPYCACHEPREFIX. CPU seconds, of all threads, are what to
compare where other work shares the cores. The process of the first step ends with that step.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from benchmarks.speed.measure import Side, in_turn, wait

FEW = ("data.val.count=20", "data.test.count=20", "controls=0", "max_steps=1", "val_every=1")
FIRST = ("+callback.ends._target_=benchmarks.speed.startup.EndsWithTheFirstStep",)


class EndsWithTheFirstStep(pl.Callback):
    """And with the device's part of it. Nothing is saved."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        wait(pl_module.device.type)
        os._exit(0)


@dataclass(frozen=True)
class Row:
    name: str
    words: tuple[str, ...]
    libraries: str  # what it needs in any case
    trains: bool = False


ROWS = [
    Row("--help", ("--help",), "hydra.compose"),
    Row("a typo", ("modle=clip_prefix",), "hydra.compose"),
    Row("dry_run=true", ("dry_run=true",), "lightning.pytorch"),
    Row("the first step", FIRST, "lightning.pytorch", trains=True),
    Row("a run of one step", FEW, "lightning.pytorch", trains=True),
]


def rows(tiny: bool) -> list[Row]:
    return ROWS[:2] if tiny else ROWS


def measure(row: Row, tiny: bool, device: str, rounds: int, with_static: bool) -> list[Side]:
    with tempfile.TemporaryDirectory() as folder:

        def process(*words: str) -> Callable[[], Any]:
            command = [sys.executable, *words]
            return lambda: subprocess.run(command, cwd=folder, check=False, capture_output=True)

        program = (
            f"import sys; sys.path.insert(0, {str(Path.cwd())!r}); from capkit.cli import main; main(sys.argv[1:])"
        )
        trainer = [f"trainer={'gpu' if device == 'cuda' else 'cpu'}", "trainer.devices=1"] if row.trains else []
        task = [] if row.words == ("--help",) else ["fit"]
        sides = {
            "capkit": process("-c", program, *task, *row.words, *trainer),
            f"import {row.libraries}": process("-c", f"import {row.libraries}"),
        }
        found = in_turn(sides, rounds, "cpu", warm_up=0)
        for side in found:
            side.cpu_s = _cpu_seconds(sides[side.name])
        return found


def _cpu_seconds(process: Callable[[], Any]) -> float:
    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    process()
    return spent() - before
