"""The command line: `capkit [task] [overrides]` and `python train.py [task] [overrides]` both call `main`.

Usage errors end with status 2 and one message, before torch is imported if the config alone reveals them.
"""

import os
import shlex
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import capkit
from capkit.config.arguments import Command, parse
from capkit.config.check import compose_checked
from capkit.config.completion import completions
from capkit.config.compose import compose_config
from capkit.config.composed import CONFIG_NAME, Composed
from capkit.config.help import SHORT, help_page, keys_page, list_page
from capkit.config.instantiate import build
from capkit.config.locations import config_dir
from capkit.config.quoting import quote
from capkit.config.running import run_composed
from capkit.config.shells import script
from capkit.config.shown import show_page
from capkit.config.sweeps import split_sweep
from capkit.errors import INTERRUPTED_STATUS, UsageError, exit_status, known_error
from capkit.run.optuna_sweep import Optuna, distribution
from capkit.run.sweep_table import note_given, write_sweep_table
from capkit.utils.console import command_name, loudness, note_command, print_on, set_loudness, speaks

OTHER_RANKS_WAIT_S = 5.0


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    try:
        _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", flush=True)
        return INTERRUPTED_STATUS
    except Exception as error:
        known = known_error(error)
        if known is None:
            raise
        if loudness() == "verbose":
            traceback.print_exception(error)
        _tell(f"error: {known}")
        return exit_status(known)
    return 0


def _tell(message: str) -> None:
    """Print an error: by rank 0 at once if ranks were started by torchrun or srun, by other ranks after a delay.

    The launcher kills waiting ranks when rank 0 exits; an error of another rank alone is printed by that rank.
    """
    if not speaks():
        time.sleep(OTHER_RANKS_WAIT_S)
    print(message, file=sys.stderr, flush=True)


def _run(argv: list[str]) -> None:
    try:
        here = os.getcwd()
    except FileNotFoundError as error:
        raise UsageError("the working directory no longer exists; cd to one that does") from error
    if here not in sys.path:
        sys.path.append(here)  # where a user's own classes and functions are, as for `python -m`
    if argv[:1] == ["--complete"]:  # a shell asks, by the script of `capkit completion SHELL`
        print_on("\n".join(completions(argv[1:])))
        return
    if argv[:1] == ["completion"]:
        print_on(script(argv[1:]).rstrip("\n"))
        return
    command = parse(argv)
    if {"--quiet", "--verbose"} <= command.flags:
        raise UsageError("expected --quiet or --verbose, got both; keep one")
    set_loudness("quiet" if "--quiet" in command.flags else "verbose" if "--verbose" in command.flags else "")
    note_command(shlex.join([*command_name().split(), *argv]))
    if not argv:
        print_on(SHORT)
    elif "--help" in command.flags:
        print_on(keys_page(command) if command.overrides else help_page(command.config_dirs))
    elif "list" in command.flags:
        print_on(list_page(command.topics, command.config_dirs))
    elif "--version" in command.flags:
        print_on(f"capkit {capkit.__version__}")
    elif "show" in command.flags:
        print_on(show_page(command))
    elif "--cfg" in command.flags:
        print_on(OmegaConf.to_yaml(compose_config(command).config).rstrip("\n"))
    else:
        composed = compose_checked(command)
        if command.multirun or composed.multirun:
            _run_many(command, composed)
        elif composed.config.get("sweeper") is not None:
            raise UsageError("sweeper=optuna chooses values for several runs, got one; add -m")
        else:
            run_composed(composed)


def _run_many(command: Command, composed: Composed) -> None:
    """Run a sweep, by Hydra's sweeper and launcher or by capkit's own sweeper, and print one table of its runs.

    Each job writes to its own folder within the sweep's.
    """
    overrides = [
        _with_prefix_of(admitted, typed) for admitted, typed in zip(composed.overrides, command.overrides, strict=False)
    ]
    sweep = Path(composed.config.run_dir or composed.hydra.sweep.dir)
    if composed.config.get("sweeper") is None:
        _run_by_hydra(command, [f"hydra.sweep.dir={quote(str(sweep))}", *overrides])
    else:
        _run_by_trials(command, build(composed.config.sweeper), overrides, sweep)
    if speaks() and sweep.is_dir():
        write_sweep_table(sweep)


def _run_by_hydra(command: Command, overrides: list[str]) -> None:
    import hydra

    folders = [f"--config-dir={folder}" for folder in command.config_dirs]
    sys.argv = [sys.argv[0], *folders, "--multirun", *overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises to us instead of printing and exiting
    hydra.main(config_path=str(config_dir()), config_name=CONFIG_NAME, version_base="1.3")(_run_job)()


def _run_by_trials(command: Command, sweeper: Optuna, overrides: list[str], sweep: Path) -> None:
    """Each trial is a run of its own in this process, composed like a single run."""
    fixed, swept = split_sweep(overrides, command.config_dirs)
    space = {key: distribution(one.values, one.ends, one.is_log) for key, one in swept.items()}

    def run_trial(values: Mapping[str, Any], folder: Path) -> None:
        given = [f"{swept[key].prefix}{key}={value}" for key, value in values.items()]
        composed = compose_config(Command([*fixed, *given], config_dirs=command.config_dirs))
        composed.config.run_dir = str(folder)
        note_given(folder, given)
        run_composed(composed)

    own = ("sweeper", "run_dir", "trainer")  # may differ between starts of one sweep
    sweeper.run(space, run_trial, sweep, [one for one in fixed if not one.lstrip("+").startswith(own)])


def _with_prefix_of(admitted: str, typed: str) -> str:
    """A sweep as typed, with the prefix under which its first value was accepted."""
    return f"++{typed.lstrip('+')}" if admitted.startswith("++") else typed.lstrip("+")


def _run_job(_: DictConfig) -> Any:
    """Run one job of a sweep, composed like a single run, in the run folder that Hydra made for it."""
    from hydra.core.hydra_config import HydraConfig

    job = HydraConfig.get()
    folders = [Path(source.path) for source in job.runtime.config_sources if source.provider == "command-line"]
    composed = compose_config(Command(list(job.overrides.task), config_dirs=folders))
    composed.config.run_dir = job.runtime.output_dir
    if speaks():
        note_given(Path(job.runtime.output_dir), job.overrides.task)
    return run_composed(composed)
