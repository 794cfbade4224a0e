"""wandb logger that a run does not depend on: metrics.jsonl stays the source of truth."""

import math
import os
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from capkit.errors import UsageError
from capkit.run.folder import RunFolder
from capkit.run.metric_names import SAMPLES
from capkit.types import Row

# How long to wait for wandb at the start and at the end of a run.
INIT_S = 30.0
FINISH_S = 120.0


class WandbLogger(Logger):
    """Logs numbers and a table of sample captions to wandb.

    Each attempt is its own wandb run, in a group named after the run folder, since offline runs cannot be continued.
    If wandb fails, the run warns once and continues without it. `capkit wandb_sync run_dir=RUN` uploads all attempts as
    one wandb run, from metrics.jsonl.

    Args:
        project: wandb project.
        entity: wandb user or team; null is your default.
        mode: online, offline (upload later with `wandb sync`), or auto: online if an API key is set, else offline.
    """

    def __init__(self, project: str = "capkit", entity: str | None = None, mode: str = "auto") -> None:
        super().__init__()
        if mode not in ("auto", "online", "offline"):
            raise UsageError(f"expected logger.wandb.mode to be auto, online or offline; got {mode!r}")
        self.project, self.entity, self.mode = project, entity, mode
        self._run: Any = None
        self._failed = False
        self._folder: RunFolder | None = None
        self._config: Mapping[str, Any] = {}

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str | None:
        return self._run.id if self._run is not None else None

    def attach(self, folder: RunFolder, config: Mapping[str, Any]) -> None:
        self._folder, self._config = folder, config

    def _attempt(self, action: Callable[[Any], None]) -> None:
        if self._failed:
            return
        try:
            if self._run is None:
                self._run = self._start()
            action(self._run)
        except Exception as error:  # wandb may raise anything, and training must continue
            self._failed = True
            warnings.warn(f"wandb failed ({type(error).__name__}: {error}); continuing without it", stacklevel=2)

    def _start(self) -> Any:
        import wandb

        assert self._folder is not None, "attach() must be called before the first number is logged"
        mode = self.mode
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
        name = self._folder.path.name
        return wandb.init(
            project=self.project,
            entity=self.entity,
            mode=mode,  # type: ignore[arg-type]
            dir=str(self._folder.path),
            group=name,
            name=f"{name}-{self._folder.attempt}",
            config=dict(self._config),
            settings=wandb.Settings(init_timeout=INIT_S, finish_timeout=FINISH_S),
        )

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """No-op: `attach` received the config."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._attempt(lambda run: run.log(dict(metrics), step=step))

    @rank_zero_only
    def log_samples(self, rows: Sequence[Row], images: Sequence[np.ndarray]) -> None:
        """Log a table of images with their captions and references.

        Rows of a fine-tuned captioner also have `before`, the caption at the start, and `rewards` by term, which become
        columns too; so does `before_rewards`, the rewards of the caption at the start, if known.
        """

        def log(run: Any) -> None:
            import wandb

            cells = [_cells(row, wandb.Image(image)) for row, image in zip(rows, images, strict=True)]
            columns = list(dict.fromkeys(name for row in cells for name in row))
            table = wandb.Table(columns=list(columns), data=[[row.get(name) for name in columns] for row in cells])
            run.log({SAMPLES: table})

        self._attempt(log)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """No-op: Lightning calls this after each fit, before the test numbers. `finish` closes the run."""

    @rank_zero_only
    def finish(self) -> None:
        if self._run is not None:
            self._attempt(lambda run: run.finish())


def _cells(row: Row, image: Any) -> dict[str, Any]:
    """A row of the table, by column."""
    cells = {"key": row["key"], "image": image, "references": "\n".join(row["references"])}
    if "before" not in row:
        return {**cells, "caption": row["caption"]}
    before = {f"before: {term}": _number(value) for term, value in row.get("before_rewards", {}).items()}
    now = {f"now: {term}": _number(value) for term, value in row["rewards"].items()}
    return {**cells, "before": row["before"], **before, "now": row["caption"], **now}


def _number(value: float | int) -> float | None:
    """None, an empty cell, for a caption that could not be scored."""
    return None if math.isnan(value) else float(value)
