"""The folder a run leaves behind: config, metrics, predictions, checkpoints, report. Written by rank 0."""

import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from capkit.config.defaults import with_defaults
from capkit.errors import UsageError

# Keys that may change between two attempts of one run: they change no number that the run computes, or its rounding.
NEUTRAL_KEYS = (
    "run_dir",
    "resume",
    "dry_run",
    "logger",
    "torch_threads",
    "data.num_workers",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "callback.checkpoints.keep_last",
    "callback.checkpoints.keep_every_steps",
    "callback.progress",
    "callback.preemption",
    "callback.watchdog",
)


def default_run_dir(name: str) -> Path:
    """A fresh folder, the same on all ranks: named by the SLURM job, or by the launcher's run id, or by the clock.

    Raises UsageError where several ranks were started from outside and share no name.
    """
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:  # a job that is requeued keeps its number
        return Path("runs", f"{name}-slurm-{os.environ['SLURM_JOB_ID']}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        run_id = os.environ.get("TORCHELASTIC_RUN_ID", "none")
        if run_id == "none":
            raise UsageError("several ranks must write to one folder; none was named; give run_dir=PATH")
        return Path("runs", f"{name}-{run_id}")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = Path("runs", f"{name}-{stamp}")
    attempt = 1
    while path.exists():
        attempt += 1
        path = Path("runs", f"{name}-{stamp}-{attempt}")
    return path


def unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"run_dir must be a writable folder; {folder}: {error.strerror}; give another run_dir=PATH")


def write_atomically(path: Path, text: str) -> None:
    """Writes to a temporary name beside `path`, flushes to disk, then renames: never a half-written file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def add_to_file(path: Path, text: str) -> None:
    """Adds text to the end of a file, all of it; where the disk is full OSError is raised and none of it is added."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        try:
            left = text.encode()
            while left:
                left = left[os.write(descriptor, left) :]
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts and lists as one dict of dotted keys."""
    if isinstance(config, Mapping) and config:
        items = [(str(k), v) for k, v in config.items()]
    elif isinstance(config, list) and config:
        items = [(str(i), v) for i, v in enumerate(config)]
    else:
        return {prefix: config}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else key))
    return flat


class RunFolder:
    """Paths and append-only records of one run.

    `attempt` counts the times the run was started. A later attempt first writes a row with `resumed_from`, the step of
    its checkpoint, 0 without one: rows of earlier attempts beyond that step are superseded. So is a row that a later
    attempt wrote again, as that of the validation of this step.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.metrics_log = self.path / "metrics.jsonl"
        self.metrics_file = self.path / "metrics.json"
        self.predictions = self.path / "predictions"
        self.checkpoints = self.path / "checkpoints"
        self.report = self.path / "report.html"
        self.attempt = 1
        self._waiting: list[str] = []  # rows that the disk did not take

    def open(self, config: Mapping[str, Any]) -> None:
        """Creates the folder, or checks that it holds the same run; a refused config leaves the folder untouched.

        The config is recorded with all constructor defaults. A record without them, of an earlier version, is compared
        as if it had today's.
        """
        config = _plain(with_defaults(_plain(config)))
        if self.config_file.exists():
            recorded = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
            self._refuse_other_config(with_defaults(recorded), config)
            self.attempt = 1 + max((row.get("attempt", 1) for row in self.rows()), default=0)
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.predictions.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(self.path, error) from error
        if self.metrics_log.exists() and not self.metrics_log.read_bytes().endswith(b"\n"):
            with self.metrics_log.open("a") as file:
                file.write("\n")  # a kill cut the last row: the next one starts its own line
        write_atomically(self.config_file, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))

    def _refuse_other_config(self, old: Any, new: Any) -> None:
        before, after = flatten(old), flatten(new)
        changed = [
            f"  {key}: {before.get(key, '(absent)')!r} -> {after.get(key, '(absent)')!r}"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key) and not _is_neutral(key)
        ]
        if changed:
            raise UsageError(
                f"the run in {self.path} was started with another config; changed keys:\n"
                + "\n".join(changed)
                + "\ncontinue with the old values, or start a new run with another run_dir"
            )

    def rows(self) -> list[dict[str, Any]]:
        """All whole rows of metrics.jsonl; a last line cut off by a kill is left out."""
        if not self.metrics_log.exists():
            return []
        rows = []
        for line in self.metrics_log.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows

    def current_rows(self) -> list[dict[str, Any]]:
        """Rows without those that a later attempt went over again."""
        rows = self.rows()
        resumed = {row["attempt"]: row["resumed_from"] for row in rows if "resumed_from" in row}
        kept = {
            (row["step"], frozenset(row)): row
            for row in rows
            if "resumed_from" not in row
            and all(row["step"] <= step for attempt, step in resumed.items() if attempt > row["attempt"])
        }
        return list(kept.values())

    def append(self, step: int, values: Mapping[str, float | int]) -> None:
        """Adds a row. One that cannot be written (disk full, no permission) waits, and is written with a later one."""
        row = {"step": step, "attempt": self.attempt, "time": round(time.time(), 3), **values}
        self._waiting.append(json.dumps(row) + "\n")
        self._write_waiting()

    def _write_waiting(self) -> None:
        try:
            add_to_file(self.metrics_log, "".join(self._waiting))
        except OSError as error:
            if len(self._waiting) == 1:
                warnings.warn(f"{self.metrics_log} takes no rows ({error}); they wait in memory", stacklevel=3)
        else:
            self._waiting.clear()

    def write_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows kept for a later attempt, as NAME.jsonl."""
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        write_atomically(self.path / f"{name}.jsonl", "".join(f"{line}\n" for line in lines))

    def read_rows(self, name: str) -> list[dict[str, Any]]:
        """What `write_rows` wrote; nothing where it did not."""
        path = self.path / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def write_metrics(self, values: Mapping[str, float | int]) -> None:
        """Adds final numbers to metrics.json."""
        if self._waiting:
            self._write_waiting()
        write_atomically(self.metrics_file, json.dumps({**self.metrics(), **values}, indent=1) + "\n")

    def metrics(self) -> dict[str, float]:
        return json.loads(self.metrics_file.read_text(encoding="utf-8")) if self.metrics_file.exists() else {}


def _plain(config: Any) -> Any:
    """Through JSON, so that tuples and lists, and numbers read back from YAML, compare equal."""
    return json.loads(json.dumps(config))


def _is_neutral(key: str) -> bool:
    return any(key == neutral or key.startswith(f"{neutral}.") for neutral in NEUTRAL_KEYS)
