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
    status: int = 0  # that it ends with


ROWS = [
    Row("--help", ("--help",), "hydra.compose"),
    Row("a typo", ("modle=clip_prefix",), "hydra.compose", status=2),
    Row("dry_run=true", ("dry_run=true",), "lightning.pytorch"),
    Row("the first step", FIRST, "lightning.pytorch", trains=True),
    Row("a run of one step", FEW, "lightning.pytorch", trains=True),
]


def rows(tiny: bool) -> list[Row]:
    return ROWS[:2] if tiny else ROWS


def measure(row: Row, tiny: bool, device: str, rounds: int, with_static: bool) -> list[Side]:
    spent: dict[str, float] = {}  # by the last process of a side
    with tempfile.TemporaryDirectory() as folder:

        def process(side: str, status: int, *words: str) -> Callable[[], Any]:
            def work() -> None:
                before = _cpu_seconds()
                ended = subprocess.run(
                    [sys.executable, *words], cwd=folder, check=False, capture_output=True, text=True
                )
                spent[side] = _cpu_seconds() - before
                if ended.returncode != status:
                    raise RuntimeError(f"{words} ended with {ended.returncode}, not {status}: {ended.stderr[-2000:]}")

            return work

        here = f"import sys; sys.path.insert(0, {str(Path.cwd())!r})"
        program = f"{here}; from capkit.cli import main; sys.exit(main(sys.argv[1:]))"
        trainer = [f"trainer={'gpu' if device == 'cuda' else 'cpu'}", "trainer.devices=1"] if row.trains else []
        task = [] if row.words == ("--help",) else ["fit"]
        libraries = f"import {row.libraries}"
        sides = {
            "capkit": process("capkit", row.status, "-c", program, *task, *row.words, *trainer),
            libraries: process(libraries, 0, "-c", libraries),
        }
        found = in_turn(sides, rounds, "cpu", warm_up=0)
    for side in found:
        side.cpu_s = spent[side.name]
    return found


def _cpu_seconds() -> float:
    """Of all processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
