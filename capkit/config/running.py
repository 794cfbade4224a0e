"""Runs the task of a composed config: what the command line and the Python API share."""

import importlib
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig

from capkit.config.cells import hand_over
from capkit.config.composed import Composed
from capkit.config.described import described
from capkit.utils.console import phase, say
from capkit.utils.interrupts import held_interrupts


def run_composed(composed: Composed) -> Any:
    """Run a task after printing the values that it takes from an earlier run or a model's recommendations."""
    for line in described(composed):
        say(line)
    hand_over(composed)
    return run_task(composed.config)


def run_task(config: DictConfig) -> Any:
    """Import and call the function that the task's yaml names."""
    module, _, name = config.task["_target_"].rpartition(".")
    with phase("starting"), held_interrupts():
        function: Callable[[DictConfig], Any] = getattr(importlib.import_module(module), name)
    return function(config)
