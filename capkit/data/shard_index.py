"""The index of a folder of shards: where in its tars each picture lies, and the records, for reading in any order.

    shards.json    what the shards were made of; the tars; a split's number of records, their hash, what is unusable
    train.jsonl    the records, one a line, in the source's order: also a manifest for data=manifest
    train.npy      a row a record (ROW): its line's place, its tar's number, its picture's place, size and hash

The tars are plain webdataset tars (KEY.jpg, KEY.json), which other programs read too. `shards.json` is written last.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from capkit.errors import UsageError
from capkit.utils.files import atomic_path, write_json
from capkit.utils.text_files import expect, member, read_json

ABOUT, PARTS = "shards.json", ".parts"  # the latter holds what is not whole yet
VERSION = 1
NO_TAR = -1  # of a picture that cannot be used
ROW = np.dtype([("line", "<i8"), ("tar", "<i4"), ("offset", "<i8"), ("size", "<i8"), ("hash", "<u8")])


@dataclass(frozen=True)
class Tar:
    """A tar by its path, absolute or relative to the folder of the index, and its size in bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class Entry:
    """A record, and its picture's place in a tar; or why the picture cannot be used."""

    row: dict[str, Any]
    tar: int = NO_TAR
    offset: int = 0
    size: int = 0
    hash: int = 0
    unusable: str | None = None


def hash_of(data: bytes) -> int:
    """64-bit hash of a picture's bytes."""
    return xxhash.xxh3_64_intdigest(data)


def write_split(folder: Path, split: str, entries: Iterable[Entry]) -> dict[str, Any]:
    """Write a split's records and places. Returns what `shards.json` says of it."""
    rows, unusable, position = [], {}, 0
    with atomic_path(folder / f"{split}.jsonl") as temporary, temporary.open("wb") as lines:
        for number, entry in enumerate(entries):
            line = json.dumps(entry.row).encode() + b"\n"
            lines.write(line)
            rows.append((position, entry.tar, entry.offset, entry.size, entry.hash))
            position += len(line)
            if entry.unusable is not None:
                unusable[str(number)] = entry.unusable
    with atomic_path(folder / f"{split}.npy") as temporary, temporary.open("wb") as file:
        np.save(file, np.array(rows, ROW))
    return {"records": len(rows), "unusable": unusable}


def write_about(folder: Path, made_of: dict[str, Any], tars: Sequence[Tar], splits: dict[str, dict[str, Any]]) -> None:
    about = {"version": VERSION, "of": made_of, "tars": [[tar.path, tar.size] for tar in tars], "splits": splits}
    write_json(folder / ABOUT, about)


class ShardIndex:
    """The index of one split. Raises UsageError if the folder has no index, not this split, or a damaged one."""

    def __init__(self, folder: str | Path, split: str) -> None:
        self.folder = Path(folder).absolute()
        if not (self.folder / ABOUT).is_file():
            has_begun = (self.folder / PARTS).exists() or any(self.folder.rglob(ABOUT))
            if not has_begun and any(self.folder.rglob("*.tar")):
                raise UsageError(
                    f"shards: expected a folder that `capkit shard` wrote, got tars from elsewhere in {folder}; index "
                    f"them, which leaves them as they are, by `capkit shard tars={folder} out=INDEX`, and give INDEX"
                )
            raise UsageError(
                f"shards: expected a folder that `capkit shard` wrote to its end, with {ABOUT}; {folder} has none; "
                "write it (the same command again goes on where it was stopped)"
            )
        where = str(self.folder / ABOUT)
        about = expect(read_json(self.folder / ABOUT, "shards"), "an object", where)
        if about.get("version") != VERSION:
            raise UsageError(
                f"{where}: expected shards of version {VERSION}, got {about.get('version')}; write them again with "
                "this version of capkit"
            )
        splits = member(about, "splits", "an object", where)
        if split not in splits:
            raise UsageError(
                f"{where}: expected one of the splits {', '.join(splits)}, got {split}; set data.{split}=null to do "
                "without it"
            )
        self.tars = [Tar(path, size) for path, size in member(about, "tars", "a list", where)]
        entry = expect(splits[split], "an object", where)
        self.fingerprint = str(member(entry, "fingerprint", "text", where))
        self._unusable = member(entry, "unusable", "an object", where)
        self.lines = self.folder / f"{split}.jsonl"
        self._rows = self._read_rows(
            self.folder / f"{split}.npy", int(member(entry, "records", "a whole number", where))
        )

    def _read_rows(self, path: Path, count: int) -> np.ndarray:
        try:
            rows = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"{path}: expected the index of a split, got {error}; run `capkit shard` again") from error
        if rows.dtype != ROW or rows.shape != (count,):
            raise UsageError(
                f"{path}: expected {count} places, got {rows.shape} of {rows.dtype}; run `capkit shard` again"
            )
        return rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> np.void:
        """The row of a record: `line`, `tar`, `offset`, `size`, `hash`."""
        return self._rows[index]

    def line_end(self, index: int) -> int | None:
        """Where a record's line ends; None: at the end of the file."""
        return int(self._rows[index + 1]["line"]) if index + 1 < len(self._rows) else None

    def reason(self, index: int) -> str:
        """Why the picture of a record without a tar cannot be used."""
        return str(self._unusable[str(index)])
