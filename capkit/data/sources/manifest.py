"""Data source over a JSONL manifest, one record per line. docs/data.md describes the format."""

from pathlib import Path

import numpy as np

from capkit.data.files import ImageFiles
from capkit.data.records import Record, check_unique_keys, parse_line, read_manifest
from capkit.errors import UsageError
from capkit.utils.text_files import existing_file


class Manifest:
    """A data source over a JSONL manifest. All lines are checked at first use; only their positions stay in memory.

    `root` is the folder that relative image paths refer to; null: the manifest's own folder.
    """

    def __init__(self, path: str, root: str | None = None) -> None:
        self._path = existing_file(path, "manifest").absolute()
        self.files = ImageFiles(Path(root) if root is not None else self._path.parent)
        self._starts: np.ndarray | None = None
        self._numbers: np.ndarray | None = None

    def _open(self) -> tuple[np.ndarray, np.ndarray]:
        if self._starts is None or self._numbers is None:
            check_unique_keys(read_manifest(self._path), str(self._path))
            rows, position = [], 0
            with self._path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        rows.append((position, number))
                    position += len(line)
            if not rows:
                raise UsageError(f"{self._path}: no records; write one JSON object a line")
            self._starts, self._numbers = np.array(rows, np.int64).T
        return self._starts, self._numbers

    def __len__(self) -> int:
        return len(self._open()[0])

    def record(self, index: int) -> Record:
        starts, numbers = self._open()
        with self._path.open("rb") as lines:
            lines.seek(int(starts[index]))
            return parse_line(lines.readline(), self._path, int(numbers[index]))

    def image(self, index: int) -> np.ndarray:
        return self.files.load(self.record(index).image)
