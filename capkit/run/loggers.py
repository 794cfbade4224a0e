"""A run's loggers: capkit's own and any of Lightning's."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger

from capkit.config.instantiate import build
from capkit.config.signatures import signature
from capkit.run.folder import RunFolder
from capkit.run.metric_names import SAMPLES
from capkit.types import Row


@runtime_checkable
class RunLogger(Protocol):
    """What a logger may have beside Lightning's methods: the run's folder and config, samples, an end of its own."""

    def attach(self, folder: RunFolder, config: Mapping[str, Any]) -> None: ...
    def log_samples(self, rows: Sequence[Row], images: Sequence[np.ndarray]) -> None: ...
    def finish(self) -> None: ...


@runtime_checkable
class RetrievalLogger(Protocol):
    """A logger that shows captions with the pictures nearest to each."""

    def log_retrieval(self, rows: Sequence[Row], images: Mapping[str, np.ndarray]) -> None: ...


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
            if isinstance(logger, TensorBoardLogger):
                _show_samples(logger, rows, images, step)
            logger.save()
            logger.finalize("success")


def _show_samples(logger: TensorBoardLogger, rows: Sequence[Row], images: Sequence[np.ndarray], step: int) -> None:
    """Each sample's picture, and under the same tag its caption (and the one from before training) and references."""
    for row, image in zip(rows, images, strict=True):
        tag = f"{SAMPLES}/{row['key']}"
        before = f"before: {row['before']}\n\n" if "before" in row else ""
        references = "".join(f"\n- {text}" for text in row["references"])
        logger.experiment.add_image(tag, image, step, dataformats="HWC")
        logger.experiment.add_text(tag, f"{before}{row['caption']}\n{references}", step)
