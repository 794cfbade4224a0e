"""Messages between ranks outside the process group: small files in the run folder.

Why files and not the process group's store: the store lives in one process, under srun in rank 0, so that nobody could
report a stopped rank 0. A run folder that all ranks see is needed for checkpoints anyway. Files are created early, and
opened anew for each read, for which NFS returns the latest write. Heartbeats overwrite their file in place, which works
on a full disk.
"""

import contextlib
import json
import re
import socket
from dataclasses import asdict, dataclass
from os import getpid
from pathlib import Path
from typing import Any

from capkit.fault_tolerance.processes import pid_space, start_time
from capkit.utils.files import TEMPORARY, atomic_path
from capkit.utils.removal import remove_own

BEAT_BYTES = 1024
_ATTEMPT = re.compile(r"attempt-\d{4,}")
_FILES = ("verdicts.jsonl", "rank-*.json", TEMPORARY, ".rank-*.json", "stacks-rank-*.txt")


@dataclass(frozen=True)
class Heartbeat:
    """A rank's sign of life. `seconds`: since its last progress. `waits`: whether it waits for other ranks."""

    rank: int
    number: int
    section: str
    count: int
    step: int
    seconds: float
    place: str
    waits: bool
    host: str
    pid: int
    started: int | None
    pid_space: str | None

    @property
    def is_here(self) -> bool:
        """Whether this process can inspect the rank's process."""
        return self.pid_space is not None and self.pid_space == pid_space()

    def __str__(self) -> str:
        where = f"rank {self.rank} ({self.host}, pid {self.pid}): section {self.section}, step {self.step}"
        return f"{where}, {self.place}{', waits for other ranks' if self.waits else ''}"


def identity() -> dict[str, Any]:
    pid = getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": start_time(pid), "pid_space": pid_space()}


@dataclass(frozen=True)
class Verdict:
    """Why all ranks end. `kind` is lost, stuck or error; `by` is the reporting rank; `status` the exit status."""

    kind: str
    by: int
    ranks: list[int]
    status: int
    message: str


class HeartbeatFiles:
    """The files of one attempt of a run. The first verdict counts. On a full disk, writing one fails silently."""

    def __init__(self, folder: Path, rank: int, world_size: int) -> None:
        self.folder, self.rank, self.world_size = folder, rank, world_size
        self.verdicts = folder / "verdicts.jsonl"

    def open(self, first: Heartbeat) -> None:
        """Create the heartbeat file with its first content, so that a rank stopped right now is already noticed."""
        # Not shared with the other ranks if their run folder is elsewhere; then nobody watches this rank.
        self.folder.mkdir(parents=True, exist_ok=True)
        self.verdicts.touch()
        with atomic_path(self._beat_file(self.rank), flush=False) as temporary:
            temporary.write_bytes(_bytes_of(first))

    def leave(self) -> None:
        """Remove this rank's files after it ended well. The last rank also removes the folder."""
        self._beat_file(self.rank).unlink(missing_ok=True)
        self.stacks(self.rank).unlink(missing_ok=True)
        if not list(self.folder.glob("rank-*")) and self.verdict() is None:
            # Another rank may leave at the same moment, and a folder may hold other files.
            with contextlib.suppress(OSError):
                self.verdicts.unlink(missing_ok=True)
                self.folder.rmdir()
                self.folder.parent.rmdir()

    def _beat_file(self, rank: int) -> Path:
        return self.folder / f"rank-{rank:05d}.json"

    def stacks(self, rank: int) -> Path:
        return self.folder / f"stacks-rank-{rank}.txt"

    def beat(self, beat: Heartbeat) -> None:
        with self._beat_file(self.rank).open("r+b") as file:
            file.write(_bytes_of(beat))

    def read(self, rank: int) -> Heartbeat | None:
        """None if there is no heartbeat, or it is being written."""
        try:
            return Heartbeat(**json.loads(self._beat_file(rank).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def has_left(self, rank: int) -> bool:
        return not self._beat_file(rank).exists()

    def report(self, verdict: Verdict) -> Verdict:
        """Append a verdict and return the one that counts: this one, unless another rank was first."""
        try:
            with self.verdicts.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(verdict)) + "\n")
        except OSError:
            return verdict
        return self.verdict() or verdict

    def verdict(self) -> Verdict | None:
        return read_verdict(self.verdicts)


def _bytes_of(beat: Heartbeat) -> bytes:
    return json.dumps(asdict(beat)).encode()[:BEAT_BYTES].ljust(BEAT_BYTES)


def read_verdict(path: Path) -> Verdict | None:
    """The first complete line; None if there is none or it is not a verdict."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return Verdict(**json.loads(lines[0])) if len(lines) > 1 else None
    except (OSError, ValueError, TypeError):
        return None


def attempts(run_dir: Path) -> list[Path]:
    """Folders of a run's attempts that still exist, oldest first."""
    return sorted(path for path in (run_dir / "watch").glob("attempt-*") if _ATTEMPT.fullmatch(path.name))


def new_attempt(run_dir: Path) -> Path:
    """Create the folder of the next attempt. Folders of earlier attempts without a verdict are removed."""
    earlier = attempts(run_dir)
    number = 1 + max((int(path.name.rpartition("-")[2]) for path in earlier), default=0)
    for path in earlier:
        if read_verdict(path / "verdicts.jsonl") is None:
            with contextlib.suppress(OSError):
                remove_own(path, _FILES)
    folder = run_dir / "watch" / f"attempt-{number:04d}"
    folder.mkdir(parents=True)
    return folder
