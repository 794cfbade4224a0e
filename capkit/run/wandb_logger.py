"""wandb logger that a run does not depend on: metrics.jsonl stays the source of truth."""

import json
import math
import os
import re
import uuid
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from capkit.errors import UsageError
from capkit.run.folder import RunFolder, read_object
from capkit.run.metric_names import RETRIEVAL, SAMPLES
from capkit.types import Row
from capkit.utils.files import write_atomically

# How long to wait for wandb at the start and at the end of a run.
INIT_S = 30.0
FINISH_S = 120.0
STATE = "wandb_sync.json"  # in the run folder: the id of its wandb run
SWEEP = "WANDB_SWEEP_ID"  # set by wandb's agent


class WandbLogger(Logger):
    """Logs numbers, a table of sample captions and retrieval grids to wandb.

    Online, a run that is started again goes on in its wandb run, whose id is in the run folder; steps that are done
    again were logged already, and wandb keeps the first. Offline, each attempt is its own wandb run, since such runs
    cannot be continued; `capkit wandb_sync run_dir=RUN` uploads all attempts as one, under the same id. If wandb fails,
    the run warns once and continues without it. In a sweep, id and project are those that wandb's agent gives.

    Args:
        project: wandb project.
        entity: wandb user or team; null is your default.
        mode: online, offline (upload later with `wandb sync`), or auto: online if an API key is set, else offline.
        group: of wandb runs, such as the seeds of one setting; null: the run folder's name.
        tags: of the wandb run.
        model: a checkpoint to upload as an artifact when the run ends: last, best (the last one, where no validation
            chose a best), or none.
    """

    def __init__(
        self,
        project: str = "capkit",
        entity: str | None = None,
        mode: str = "auto",
        group: str | None = None,
        tags: Sequence[str] = (),
        model: str = "none",
    ) -> None:
        super().__init__()
        if model not in ("none", "last", "best"):
            raise UsageError(f"expected logger.wandb.model to be none, last or best; got {model!r}")
        self.group, self.tags, self.model = group, list(tags), model
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
        if SWEEP in os.environ:  # wandb's agent has given id, project and entity, and no group
            place: dict[str, Any] = {"name": name, "group": self.group}
        elif mode == "online":
            place = {"id": wandb_id(self._folder), "resume": "allow", "name": name}
        else:
            place = {"name": f"{name}-{self._folder.attempt}"}
        if SWEEP not in os.environ:
            place |= {"project": self.project, "entity": self.entity, "group": self.group or name}
        return wandb.init(
            mode=mode,  # type: ignore[arg-type]
            dir=str(self._folder.path),
            tags=self.tags or None,
            config=dict(self._config),
            settings=wandb.Settings(init_timeout=INIT_S, finish_timeout=FINISH_S),
            **place,
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
    def log_retrieval(self, rows: Sequence[Row], images: Mapping[str, np.ndarray]) -> None:
        """Log a table of captions with the pictures nearest to each, from the nearest on.

        Args:
            rows: `text`, the keys of its `nearest` pictures, of its `own`, and `place`, that of its own from 1 on.
            images: pictures by key.
        """

        def log(run: Any) -> None:
            import wandb

            most = max((len(row["nearest"]) for row in rows), default=0)
            shown = {key: wandb.Image(image, caption=key) for key, image in images.items()}
            data = [[row["text"], row["place"], *(shown[key] for key in (row["own"], *row["nearest"]))] for row in rows]
            columns = ["caption", "place", "own", *(f"nearest {number + 1}" for number in range(most))]
            run.log({RETRIEVAL: wandb.Table(columns=list(columns), data=data)})

        self._attempt(log)

    def _upload_model(self, run: Any) -> None:
        import wandb

        assert self._folder is not None
        found = checkpoint_of(self._folder.path, self.model)
        if found is None:
            warnings.warn(f"logger.wandb.model={self.model}: the run has no checkpoint to upload", stacklevel=2)
            return
        about = {**self._folder.metrics(), "checkpoint": found.name}
        artifact = wandb.Artifact(f"{_artifact_name(self._folder.path.name)}-model", type="model", metadata=about)
        if found.is_dir():
            artifact.add_dir(str(found), name=found.name)
        else:
            artifact.add_file(str(found))
        run.log_artifact(artifact, aliases=[self.model])

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """No-op: Lightning calls this after each fit, before the test numbers. `finish` closes the run."""

    @rank_zero_only
    def finish(self) -> None:
        if self._run is not None:
            if self.model != "none":
                self._attempt(self._upload_model)
            self._attempt(lambda run: run.finish())


def wandb_id(folder: RunFolder) -> str:
    """The id of the folder's wandb run; a new one is written first, so that a start that fails keeps it.

    Raises UsageError where the file is damaged.
    """
    file = folder.path / STATE
    if not file.exists():
        write_atomically(file, json.dumps({"id": uuid.uuid4().hex[:8]}) + "\n")
    found = read_object(file, "delete it to send the run as a new one").get("id")
    if not isinstance(found, str):
        raise UsageError(f"{file}: expected the id of a wandb run; delete it to send the run as a new one")
    return found


def checkpoint_of(run: Path, which: str) -> Path | None:
    """The best checkpoint of a run where it is wanted and there is one, else the newest; None without any."""
    folder = run / "checkpoints"
    best = folder / "best.ckpt"
    if which == "best" and best.exists():
        return best.resolve()
    steps = sorted(folder.glob("step-*.ckpt"), key=lambda path: int(path.stem.rpartition("-")[2]))
    return steps[-1] if steps else None


def _artifact_name(name: str) -> str:
    """A name as wandb allows it: letters, digits, _, - and ."""
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)


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
