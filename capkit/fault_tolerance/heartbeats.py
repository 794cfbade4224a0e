"""What ranks tell each other beside the process group: small files in the run folder.

Files, and not the store of the process group, because that store lives in one process: under srun in rank 0, so that
nobody could be told when rank 0 is the one that is stopped. A run folder that all ranks see is there anyway, for
checkpoints. Files exist before they matter and are opened anew for each read, which NFS answers with what was written
last; beats overwrite their file in place, which a full disk allows.
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
from capkit.utils.removal import remove_own

BEAT_BYTES = 1024
_ATTEMPT = re.compile(r"attempt-\d{4,}")
_FILES = ("verdicts.jsonl", "rank-*.json", ".rank-*.json", "stacks-rank-*.txt")


@dataclass(frozen=True)
class Heartbeat:
    """A rank's sign of life. `seconds`: since it got on. `waits`: in a call that waits for other ranks."""

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
        """Whether its process can be looked at from this one."""
        return self.pid_space is not None and self.pid_space == pid_space()

    def __str__(self) -> str:
        where = f"rank {self.rank} ({self.host}, pid {self.pid}): section {self.section}, step {self.step}"
        return f"{where}, {self.place}{', waits for other ranks' if self.waits else ''}"


def identity() -> dict[str, Any]:
    pid = getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": start_time(pid), "pid_space": pid_space()}


@dataclass(frozen=True)
class Verdict:
    """Why all ranks end: `kind` is lost, stuck or error. `by` is the rank that says so, `status` the exit status."""

    kind: str
    by: int
    ranks: list[int]
    status: int
    message: str


class HeartbeatFiles:
    """The files of one attempt of a run. The first verdict stands; writing one fails quietly on a full disk."""

    def __init__(self, folder: Path, rank: int, world_size: int) -> None:
        self.folder, self.rank, self.world_size = folder, rank, world_size
        self.verdicts = folder / "verdicts.jsonl"

    def open(self, first: Heartbeat) -> None:
        """From its first moment on, the file of beats has one: a rank that is stopped right then is missed."""
        self.folder.mkdir(parents=True, exist_ok=True)  # a run folder of its own: then nobody watches this rank
        self.verdicts.touch()
        new = self.folder / f".{self._beat_file(self.rank).name}"
        new.write_bytes(_bytes_of(first))
        new.replace(self._beat_file(self.rank))

    def leave(self) -> None:
        """This rank ended well: its beat is no longer missed. The last one takes the folder along."""
        self._beat_file(self.rank).unlink(missing_ok=True)
        self.stacks(self.rank).unlink(missing_ok=True)
        if not list(self.folder.glob("rank-*")) and self.verdict() is None:
            with contextlib.suppress(
                OSError
            ):  # ranks that leave at the same moment, and folders with something in them
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
        """None where there is none, or it is being written just now."""
        try:
            return Heartbeat(**json.loads(self._beat_file(rank).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def has_left(self, rank: int) -> bool:
        return not self._beat_file(rank).exists()

    def report(self, verdict: Verdict) -> Verdict:
        """The verdict that stands: this one, unless another rank was first."""
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
    """The first whole line; None where there is none, or it is none of ours."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return Verdict(**json.loads(lines[0])) if len(lines) > 1 else None
    except (OSError, ValueError, TypeError):
        return None


def attempts(run_dir: Path) -> list[Path]:
    """The folders of all attempts of a run that were not swept away, oldest first."""
    return sorted(path for path in (run_dir / "watch").glob("attempt-*") if _ATTEMPT.fullmatch(path.name))


def new_attempt(run_dir: Path) -> Path:
    """A folder for the channel of one more attempt. Those of attempts that left no verdict are swept away."""
    earlier = attempts(run_dir)
    number = 1 + max((int(path.name.rpartition("-")[2]) for path in earlier), default=0)
    for path in earlier:
        if read_verdict(path / "verdicts.jsonl") is None:
            with contextlib.suppress(OSError):
                remove_own(path, _FILES)
    folder = run_dir / "watch" / f"attempt-{number:04d}"
    folder.mkdir(parents=True)
    return folder
