"""`skipped.jsonl`: the examples a run skipped and why, and the budget above which it stops."""

import fcntl
import json
import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from capkit.errors import UsageError


@dataclass(frozen=True)
class Skipped:
    """A skipped example (`what="example"`, counted against the budget), or a skipped caption or region of one."""

    split: str
    key: str
    path: str | None
    reason: str
    what: str = "example"

    @property
    def identity(self) -> tuple[str, ...]:
        """Deduplication key: an example is listed once for any reason, a part of it once per reason, which names it."""
        return (self.split, self.key) if self.what == "example" else (self.split, self.key, self.reason)


def allowed_skips(max_skipped: float | int, num_examples: int) -> int:
    """Number of examples that may be skipped: an int is a count, a float a share of the split, rounded up."""
    return max_skipped if isinstance(max_skipped, int) else math.ceil(max_skipped * num_examples)


class SkipLog:
    """List each skipped item once per run. Ranks share the file and write rows under a file lock.

    `removed_regions` counts, by split, the regions that crops left out: too many to list, since another crop comes with
    each epoch.

    The budget counts what this attempt of the run skipped. Rows of an earlier attempt are not written again, and count
    only if they are skipped again, since the images may have been repaired. Without a path, nothing is written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._counted: dict[tuple[str, ...], Skipped] = {}
        self._listed: set[tuple[str, ...]] = set()
        self._read_to = 0
        self.removed_regions: Counter[str] = Counter()
        if path is not None and path.exists():
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)  # released when the file closes
                self._listed.update(row.identity for row in self._read_new(file))

    def _read_new(self, file: BinaryIO) -> list[Skipped]:
        file.seek(self._read_to)
        lines = file.read().splitlines(keepends=True)
        self._read_to = file.tell()
        # A killed process or a full disk may have truncated a line.
        return [Skipped(**json.loads(line)) for line in lines if line.endswith(b"}\n")]

    def add(self, rows: Iterable[Skipped]) -> None:
        new = {row.identity: row for row in rows if row.identity not in self._counted}
        self._counted.update(new)
        unlisted = [row for identity, row in new.items() if identity not in self._listed]
        if unlisted and self.path is not None:
            self._append(self.path, unlisted)

    def _append(self, path: Path, rows: list[Skipped]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            others = {row.identity: row for row in self._read_new(file)}
            self._counted.update(others)
            self._listed.update(others)
            lines = [json.dumps(asdict(row)) + "\n" for row in rows if row.identity not in self._listed]
            file.write(_end_of_cut_line(file) + "".join(lines).encode())
            file.flush()
            self._read_to = file.tell()
            self._listed.update(row.identity for row in rows)

    def check_budget(self, split: str, max_skipped: float | int, num_examples: int) -> None:
        """Raise UsageError if more examples of the split were skipped than `max_skipped` allows."""
        skipped = [row for row in self._counted.values() if row.split == split and row.what == "example"]
        allowed = allowed_skips(max_skipped, num_examples)
        if len(skipped) > allowed:
            first = "; ".join(f"{row.path or row.key}: {row.reason}" for row in skipped[:3])
            where = f" (all are listed in {self.path})" if self.path else ""
            raise UsageError(
                f"{len(skipped)} of {num_examples} {split} examples cannot be used and max_skipped={max_skipped} "
                f"allows {allowed}: {first}{where}; repair or remove them, or raise data.max_skipped"
            )


def _end_of_cut_line(file: BinaryIO) -> bytes:
    """The newline that ends a truncated last line, so that the next row starts on its own line."""
    if not file.seek(0, os.SEEK_END):
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"
