"""conditions.NAME=sweep: a captioner is asked for each bin of a condition in turn."""

import copy
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from capkit.checkpoint.run_checkpoints import resolve_checkpoint
from capkit.config.instantiate import plain
from capkit.distributed.collectives import rank
from capkit.errors import UsageError
from capkit.models.conditions.bins import Bins
from capkit.reports.sweep import write_sweep
from capkit.run.folder import default_run_dir
from capkit.train.conditions import kinds_of, model_config
from capkit.train.evaluated_cell import evaluated_cell
from capkit.utils.console import say

SWEEP = "sweep"


def swept(cfg: DictConfig) -> str | None:
    """The condition that the config sweeps over. Raises UsageError for several."""
    names = [str(name) for name, value in plain(cfg.conditions).items() if value == SWEEP]
    if len(names) > 1:
        raise UsageError(f"expected one condition to sweep over, got {' and '.join(names)}; give the others a value")
    return names[0] if names else None


def num_bins(cfg: DictConfig, name: str) -> int:
    """Of the captioner's condition. Raises UsageError for a condition without bins."""
    kinds = kinds_of(model_config(cfg.ckpt))
    kind = kinds.get(name)
    if not isinstance(kind, Bins):
        with_bins = [other for other, found in kinds.items() if isinstance(found, Bins)]
        raise UsageError(
            f"conditions.{name}={SWEEP}: expected a condition of bins, of which this captioner has "
            f"{', '.join(with_bins) or 'none'}; give a value"
        )
    return kind.count


def cells(cfg: DictConfig, name: str) -> Iterator[tuple[int, DictConfig]]:
    """Each bin of the condition, and the config that asks for it."""
    for number in range(num_bins(cfg, name)):
        cell = copy.deepcopy(cfg)
        cell.conditions[name] = number
        yield number, cell


def evaluate_sweep(cfg: DictConfig, name: str) -> dict[str, float]:
    """Caption and score `cfg.split` once a bin, each in a folder of its own: what is there is not decoded again.

    Writes sweep.json and sweep.html beside them. Returns the numbers of all bins, as `NAME-BIN/...`.
    """
    cfg.ckpt = str(resolve_checkpoint(Path(cfg.ckpt)))  # a run that has gone on meanwhile is another captioner
    folder = Path(cfg.run_dir or default_run_dir(f"{cfg.name}-sweep"))
    found: dict[int, dict[str, float]] = {}
    for number, cell in cells(cfg, name):
        cell.run_dir = str(folder / f"{name}-{number}")
        found[number] = evaluated_cell(cell)
    if rank() == 0 and not cfg.dry_run:
        write_sweep(folder, f"{cfg.name}: {name}", name, found)
        say(f"wrote {folder / 'sweep.json'} and {folder / 'sweep.html'}")
    return {f"{name}-{number}/{key}": value for number, numbers in found.items() for key, value in numbers.items()}
