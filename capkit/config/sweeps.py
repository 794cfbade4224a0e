"""Sweeps: overrides that stand for several runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from capkit.config.arguments import Command
from capkit.config.locations import config_dir, groups
from capkit.config.refusals import first_paragraph
from capkit.errors import UsageError

MAX_RUNS = 1000


def single_runs(command: Command) -> Iterator[Command]:
    """Runs that together check a sweep: each value of each sweep once, with the others at their first value."""
    try:
        parsed = OverridesParser.create().parse_overrides(command.overrides)
    except HydraException as error:
        raise UsageError(first_paragraph(error)) from error
    known = groups([config_dir(), *command.config_dirs])
    choices = [_sweep_values(override, known) for override in parsed]
    first = [values[0] for values in choices]
    yield Command(first, command.flags, command.config_dirs)
    for index, values in enumerate(choices):
        for value in values[1:]:
            yield Command([*first[:index], value, *first[index + 1 :]], command.flags, command.config_dirs)


def _sweep_values(override: Override, known: dict[str, list[str]]) -> list[str]:
    """The overrides that a sweep stands for, or the override itself. For a continuous interval, its two ends."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key = override.get_key_element()
    if override.is_interval_sweep():
        interval: Any = override.value()
        return [f"{key}={interval.start}", f"{key}={interval.end}"]
    value: Any = override.value()
    if isinstance(value, Glob):
        if not (names := value.filter(known.get(override.key_or_group, []))):
            raise UsageError(f"{override.input_line}: expected a pattern that matches names of a group, got no match")
        return [f"{key}={name}" for name in names]
    values = list(islice(override.sweep_string_iterator(), MAX_RUNS + 1))
    if len(values) > MAX_RUNS:
        raise UsageError(f"{override.input_line}: expected at most {MAX_RUNS} runs, got more; sweep over fewer values")
    return [f"{key}={value}" for value in values]


@dataclass(frozen=True)
class Swept:
    """What a key is swept over: listed values, or the two ends of an interval; `prefix` as it was typed (++)."""

    prefix: str
    values: list[str] | None = None
    ends: tuple[int | float, int | float] | None = None
    is_log: bool = False


def split_sweep(overrides: list[str], config_dirs: list[Path]) -> tuple[list[str], dict[str, Swept]]:
    """The overrides with one value, and what the others sweep over, by key. Raises UsageError if none does."""
    known = groups([config_dir(), *config_dirs])
    fixed, swept = [], {}
    for override in OverridesParser.create().parse_overrides(overrides):
        line, key = str(override.input_line), override.get_key_element().lstrip("+")
        if not override.is_sweep_override():
            fixed.append(line)
            continue
        prefix = line[: len(line) - len(line.lstrip("+"))]
        if override.is_interval_sweep():
            interval: Any = override.value()
            swept[key] = Swept(prefix, None, (interval.start, interval.end), "log" in interval.tags)
        else:
            values = [value.partition("=")[2] for value in _sweep_values(override, known)]
            swept[key] = Swept(prefix, values)
    if not swept:
        raise UsageError(
            "a sweep: expected a key with several values, got none; give optimizer.lr=tag(log,interval(1e-4,1e-2)), "
            "int(interval(2,6)), range(2,6) or several with commas"
        )
    return fixed, swept


def refuse_sweep(override: Override) -> None:
    if override.is_sweep_override():
        raise UsageError(
            f"{override.input_line}: expected one value, got several; add -m to run each of them, "
            f"or write a list: {override.key_or_group}=[...], or text in quotes: '\"a, b\"'"
        )
