"""A run's loggers: capkit's own and any of Lightning's."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from lightning.pytorch.loggers.logger import Logger

from capkit.config.instantiate import build
from capkit.config.signatures import signature
from capkit.run.folder import RunFolder
from capkit.types import Row


@runtime_checkable
class RunLogger(Protocol):
    """What a logger may have beside Lightning's methods: the run's folder and config, samples, an end of its own."""

    def attach(self, folder: RunFolder, config: Mapping[str, Any]) -> None: ...
    def log_samples(self, rows: Sequence[Row], images: Sequence[np.ndarray]) -> None: ...
    def finish(self) -> None: ...


def build_loggers(group: Mapping[str, Any] | None, folder: RunFolder, config: Mapping[str, Any]) -> list[Logger]:
    """The loggers of a config group, each given the run's config. A `save_dir` of null is the run's folder."""
    loggers: list[Logger] = []
    for node in (group or {}).values():
        if node is None:
            continue
        taken = signature(str(node["_target_"]))
        in_folder = taken is not None and "save_dir" in taken.arguments and node.get("save_dir") is None
        logger = build(node, **({"save_dir": str(folder.path)} if in_folder else {}))
        if isinstance(logger, RunLogger):
            logger.attach(folder, config)
        else:
            logger.log_hyperparams(dict(config))
        loggers.append(logger)
    return loggers


def finish_loggers(
    loggers: Sequence[Logger],
    numbers: Mapping[str, float],
    step: int,
    rows: Sequence[Row],
    images: Sequence[np.ndarray],
) -> None:
    """The run's last numbers, and its samples where a logger shows them; nothing is logged after this."""
    for logger in loggers:
        logger.log_metrics(dict(numbers), step)
        if isinstance(logger, RunLogger):
            logger.log_samples(rows, images)
            logger.finish()
        else:
            logger.save()
            logger.finalize("success")
