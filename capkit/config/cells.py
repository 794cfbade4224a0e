"""The cells of a matrix of runs and test sets: `capkit cross runs=[A,B] data=[NAME KEY=VALUE ..., NAME ...]`.

A cell is what `capkit evaluate ckpt=RUN data=NAME data.KEY=VALUE ...` with the other words of the command line would
be, except that metrics and decoding are those of the first run in every cell, so that cells can be compared. All of
them are composed and checked with the command, before torch is imported.
"""

import re
from collections.abc import Callable
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf, open_dict

from capkit.config.arguments import Command, parse
from capkit.config.composed import Composed
from capkit.config.datasets import DATASETS, evaluate_words
from capkit.config.quoting import quote
from capkit.errors import UsageError

CELLS = "cells"  # the key under which a task finds them, by run and data set
_OF_THE_MATRIX = frozenset({"task", "runs", DATASETS, "confidence", "run_dir"})  # keys that say nothing of a cell


def compose_cells(
    composed: Composed, parsed: list[Override], compose: Callable[[Command], Composed]
) -> dict[str, dict[str, Composed]]:
    """The cells by run, then by data set as it was written; none where the task has none, or still lacks its runs.

    Raises UsageError if one cannot be composed.
    """
    if CELLS not in composed.task_keys or any(OmegaConf.is_missing(composed.config, key) for key in ("runs", DATASETS)):
        return {}
    runs, datasets = list(composed.config.runs), list(composed.config[DATASETS])
    names = [run_name(path) for path in runs]
    for what, found in (("runs of different names", names), ("different data sets", [slug(text) for text in datasets])):
        if not found or len(set(found)) < len(found):
            raise UsageError(f"cross: expected {what}, one at least; got {', '.join(found) or 'none'}")
    others = [str(override.input_line) for override in parsed if override.key_or_group not in _OF_THE_MATRIX]
    return {
        name: {text: _cell(composed, path, text, others, compose) for text in datasets}
        for name, path in zip(names, runs, strict=True)
    }


def hand_over(composed: Composed) -> None:
    """Put the cells' configs, with all references resolved, where the task finds them."""
    if composed.cells:
        plain = {
            run: {text: OmegaConf.to_container(cell.config, resolve=True) for text, cell in row.items()}
            for run, row in composed.cells.items()
        }
        OmegaConf.update(composed.config, CELLS, plain, merge=False)


def run_name(path: str) -> str:
    """The name of a run, given by its folder or by a checkpoint in it."""
    found = Path(path).resolve()
    return found.parents[1].name if found.parent.name == "checkpoints" else found.stem


def slug(text: str) -> str:
    """The name of a data set's folder: what was written, but for characters that file names should not have."""
    return re.sub(r"[^\w.=-]+", "_", text)


def _cell(
    composed: Composed, run: str, text: str, others: list[str], compose: Callable[[Command], Composed]
) -> Composed:
    own = composed.folders[1:]
    _, choice, *values = parse(["evaluate", *evaluate_words(text, composed.groups["data"])]).overrides
    cell = compose(Command(["task=evaluate", f"ckpt={quote(run)}", choice, *others, *values], config_dirs=own))
    with open_dict(cell.config):
        for part in ("metric", "decoding"):
            node = OmegaConf.create(OmegaConf.to_container(composed.config[part], resolve=False))
            OmegaConf.update(cell.config, part, node, merge=False)
    return cell
