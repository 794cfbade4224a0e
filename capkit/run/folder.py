"""The run folder: config, metrics, predictions, checkpoints, report. Written by rank 0."""

import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from capkit.config.compared_runs import run_folder_of
from capkit.config.defaults import with_defaults
from capkit.config.run_config import read_config_file
from capkit.errors import UsageError
from capkit.run.about import record_start
from capkit.run.changes import refused_changes
from capkit.utils.files import add_to_file, unwritable, write_atomically, write_json
from capkit.utils.text_files import expect, parse_json, read_json, read_text, shown

# Files, besides metrics, that a start without a single step may leave behind.
OF_A_START = ("initial.jsonl", "judges.json", "skipped.jsonl", "curriculum.json", "memory.json")
UNTRAINED = ("test_untrained", "test_initial")


_AGAIN = "delete it and report.html beside it, and start the same command again: it evaluates anew"


def default_run_dir(name: str) -> Path:
    """A fresh folder, the same on all ranks: named after the SLURM job, the launcher's run id, or the time.

    Raises UsageError if several ranks were started externally and share no name.
    """
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:  # a requeued job keeps its id
        return Path("runs", f"{name}-slurm-{os.environ['SLURM_JOB_ID']}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        run_id = os.environ.get("TORCHELASTIC_RUN_ID", "none")
        if run_id == "none":
            raise UsageError("expected a run folder that all ranks share, got none; give run_dir=PATH")
        return Path("runs", f"{name}-{run_id}")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = Path("runs", f"{name}-{stamp}")
    attempt = 1
    while path.exists():
        attempt += 1
        path = Path("runs", f"{name}-{stamp}-{attempt}")
    return path


def run_at(path: Path) -> "RunFolder | None":
    """The run that a path names: its folder, or a checkpoint in it."""
    folder = run_folder_of(path)
    return None if folder is None else RunFolder(folder)


class RunFolder:
    """Paths and append-only records of one run.

    `attempt` counts how often the run was started. A later attempt first writes a row with `resumed_from`, its
    checkpoint's step (0 without one): rows of earlier attempts beyond that step are superseded. So is a row that a
    later attempt wrote again for the same step, such as that of a repeated validation.
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
        self._held_back: Mapping[str, Any] | None = None  # config of a start that is not recorded yet
        self._waiting: list[str] = []  # rows that could not be written yet

    def check(self, config: Mapping[str, Any], trains: bool = False) -> None:
        """Raises UsageError if the folder holds a run with another config (capkit/run/changes.py).

        A config recorded by an earlier version without constructor defaults is compared as if it had today's. A run
        that `trains` but has made no step yet may be replaced by any config.
        """
        before = self.config()
        if before is not None and not (trains and not self.has_steps()):
            self._refuse_other_config(with_defaults(before), _plain(with_defaults(_plain(config))))

    def open(self, config: Mapping[str, Any], trains: bool = False) -> None:
        """Create the folder, or check that it holds the same run; a refused config leaves the folder untouched.

        The config is recorded with all constructor defaults. Files of a start without a step are removed if its config
        differs. A run that `trains` and has made a step keeps the config and the report that it has until `go_on`.
        """
        self.check(config, trains)
        config = _plain(with_defaults(_plain(config)))
        before = self.config()
        if before is not None and trains and not self.has_steps() and refused_changes(with_defaults(before), config):
            self._forget_start()
        self.attempt = 1 + max((row["attempt"] for row in self.rows()), default=0)
        self.metrics()  # reports a damaged file now instead of at the end
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.predictions.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(self.path, error) from error
        if self.metrics_log.exists() and not self.metrics_log.read_bytes().endswith(b"\n"):
            add_to_file(self.metrics_log, "\n")  # the last row was cut off by a kill: start a new line
        self._held_back = config
        if not (trains and before is not None and self.has_steps()):
            self._record_start()

    def go_on(self) -> None:
        """The run that was opened makes steps from here on, so the report of its last end is removed.

        Called once its checkpoint is restored: a start that is refused before leaves config, report and rows as they
        were.
        """
        self.report.unlink(missing_ok=True)
        self._record_start()

    def _record_start(self) -> None:
        if self._held_back is not None:
            write_atomically(self.config_file, yaml.safe_dump(self._held_back, sort_keys=False, allow_unicode=True))
            record_start(self.path, self.attempt)
        self._held_back = None

    def has_steps(self) -> bool:
        """Whether a run in this folder recorded an optimizer step."""
        return any(self.checkpoints.glob("*.ckpt")) or any(row["step"] > 0 for row in self.rows())

    def _forget_start(self) -> None:
        """Remove numbers and captions from before the first step."""
        untrained = (file for prefix in UNTRAINED for file in self.predictions.glob(f"{prefix}*") if file.is_file())
        left = [self.path / name for name in OF_A_START]
        for file in (self.metrics_log, self.metrics_file, *left, *untrained):
            file.unlink(missing_ok=True)

    def _refuse_other_config(self, old: Any, new: Any) -> None:
        changed = refused_changes(old, new)
        if changed:
            raise UsageError(
                f"the run in {self.path} was started with another config; changed keys:\n"
                + "".join(f"  {change}\n" for change in changed)
                + "continue with the old values, or start a new run with another run_dir"
            )

    def config(self) -> dict[str, Any] | None:
        """The config that the run was started with; None if there is none. Raises UsageError if its file is damaged."""
        if not self.config_file.exists():
            return None
        return read_config_file(
            self.config_file, f"restore {self.config_file}, or delete it to use the config given now"
        )

    def rows(self) -> list[dict[str, Any]]:
        """All complete rows of metrics.jsonl; a row cut off by a kill is skipped.

        Raises UsageError with the line number if a line is anything else.
        """
        if not self.metrics_log.exists():
            return []
        rows = []
        for number, line in enumerate(_content(self.metrics_log).split(b"\n"), 1):
            row = _row(line)
            if row is not None:
                rows.append({"attempt": 1, **row})
            elif not _is_cut_off(line):
                raise UsageError(
                    f'{self.metrics_log} line {number}: expected a row such as {{"step": 10, "train/loss": 2.5}}, '
                    f"got {line[:60]!r}; delete the line"
                )
        return rows

    def current_rows(self) -> list[dict[str, Any]]:
        """Rows without those superseded by a later attempt."""
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
        """Add a row. If it cannot be written (disk full, no permission), it is kept and written with a later one."""
        row = {"step": step, "attempt": self.attempt, "time": round(time.time(), 3), **values}
        self._waiting.append(json.dumps(row) + "\n")
        self._write_waiting()

    def _write_waiting(self) -> None:
        try:
            add_to_file(self.metrics_log, "".join(self._waiting))
        except OSError as error:
            if len(self._waiting) == 1:
                warnings.warn(f"cannot write to {self.metrics_log} ({error}); rows are kept in memory", stacklevel=3)
        else:
            self._waiting.clear()

    def write_rows(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows for later attempts to NAME.jsonl."""
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        write_atomically(self.path / f"{name}.jsonl", "".join(f"{line}\n" for line in lines))

    def read_rows(self, name: str) -> list[dict[str, Any]]:
        """Rows written by `write_rows`; empty if there are none."""
        path = self.path / f"{name}.jsonl"
        if not path.exists():
            return []
        lines = enumerate(read_text(path, "the run folder").splitlines(), 1)
        rows = [(number, parse_json(line, f"{path} line {number}")) for number, line in lines]
        return [expect(row, "an object", f"{path} line {number}") for number, row in rows]

    def write_metrics(self, values: Mapping[str, float | int]) -> None:
        """Add final numbers to metrics.json."""
        if self._waiting:
            self._write_waiting()
        write_json(self.metrics_file, {**self.metrics(), **values})

    def metrics(self) -> dict[str, float]:
        """The final numbers so far. Raises UsageError if their file is damaged."""
        if not self.metrics_file.exists():
            return {}
        numbers = read_object(self.metrics_file, _AGAIN)
        for name, value in numbers.items():
            if not isinstance(value, int | float):
                raise UsageError(f"{self.metrics_file}: expected a number for {name!r}, got {shown(value)}; {_AGAIN}")
        return numbers


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a JSON file of a run. Raises UsageError with the remedy if it holds anything else."""
    try:
        return expect(read_json(path, "the run folder"), "an object", str(path))
    except UsageError as error:
        raise UsageError(f"{error}; {remedy}") from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; give permission, or another run_dir") from error


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of metrics.jsonl as a step and numbers by name; None if it is anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(row, dict) and all(isinstance(value, int | float) for value in row.values())
    counts = [row.get(name, 0) for name in ("attempt", "resumed_from")] + [row.get("step")] if whole else [None]
    return row if all(isinstance(count, int) and count >= 0 for count in counts) else None


def _is_cut_off(line: bytes) -> bool:
    """Whether a kill can have left this: nothing, the beginning of a row, or zeros after a power failure."""
    left = line.strip(b"\0 \r")
    return not left or (left.startswith(b"{") and not left.endswith(b"}") and left.isascii())


def _plain(config: Any) -> Any:
    """Round-trip through JSON, so that tuples equal lists and numbers equal those read back from YAML."""
    return json.loads(json.dumps(config))
