"""Embedding cache on disk: computed once, stored under a hash of what they were computed with, memory-mapped.

A cache folder holds one store per side (image, text) and fingerprint:

    <side>-<fingerprint>/about.json   what the rows were made with, in words: weights, preprocessing, prompt ...
                         rows.npy     (n, D) float32
                         keys.bin     16 bytes per row: hash of the text or of the pixels

A store grows under a lock on keys.bin: first rows, then their keys. A row counts once its key is written, so that a
killed process loses only uncommitted rows, and several processes may write at once.
"""

import fcntl
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError
from capkit.utils.store import KEY_BYTES, claim_folder, fingerprint


class EmbeddingStore:
    """The rows of one side and fingerprint, by 16-byte key. `about["side"]` is image or text.

    Keys are in memory (about 150 bytes each), rows on disk. Raises UsageError if the folder does not match `about`, is
    damaged, or cannot be written.
    """

    def __init__(self, root: str | Path, about: Mapping[str, Any]) -> None:
        self.root, self.about = Path(root), json.loads(json.dumps(about))
        self.folder = self.root / f"{self.about['side']}-{fingerprint(self.about)}"
        self._row_of: dict[bytes, int] = {}
        self._rows: np.ndarray | None = None
        try:
            where = f"embedding cache {self.folder}"
            claim_folder(self.folder, self.about, "keys.bin", where, "delete the folder, or give another one")
        except OSError as error:
            raise self._refusal(f"cannot be used ({error.strerror})", "give a folder that can be written") from error
        self.refresh()

    def __reduce__(self) -> tuple[Any, ...]:
        return EmbeddingStore, (self.root, self.about)

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, key: bytes) -> bool:
        return key in self._row_of

    def __getitem__(self, keys: Sequence[bytes]) -> Float[np.ndarray, "n D"]:
        """A copy of these rows. Raises KeyError for an unknown key."""
        assert self._rows is not None, "an empty store has no rows"
        return np.asarray(self._rows[[self._row_of[key] for key in keys]])

    def missing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Keys without a row, each once, in order, after reading rows that other processes added meanwhile."""
        if any(key not in self._row_of for key in keys):
            self.refresh()
        return [key for key in dict.fromkeys(keys) if key not in self._row_of]

    def refresh(self) -> None:
        """Read what other processes have committed."""
        if (self.folder / "keys.bin").exists():
            with self._locked(os.O_RDONLY, fcntl.LOCK_SH) as file:
                self._read_new(file)

    def add(self, keys: Sequence[bytes], rows: Float[np.ndarray, "n D"]) -> None:
        """Commit rows under their keys. A key that exists keeps its row."""
        if not np.isfinite(rows).all():
            raise self._refusal("was offered embeddings that are not finite", "check the encoder and its precision")
        place = {key: i for i, key in reversed(list(enumerate(keys)))}
        try:
            with self._locked(os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX) as file:
                self._read_new(file)
                fresh = [key for key in dict.fromkeys(keys) if key not in self._row_of]
                if fresh:
                    self._write_rows(np.asarray(rows[[place[key] for key in fresh]], dtype="<f4"))
                    _write_all(file, b"".join(fresh), len(self) * KEY_BYTES)
                    os.fsync(file)
                    self._read_new(file)
        except OSError as error:
            remedy = "give a folder that can be written and has room"
            raise self._refusal(f"cannot take new rows ({error.strerror})", remedy) from error

    @contextmanager
    def _locked(self, flags: int, lock: int) -> Iterator[int]:
        file = os.open(self.folder / "keys.bin", flags, 0o644)
        try:
            fcntl.flock(file, lock)
            yield file
        finally:
            os.close(file)  # also releases the lock

    def _read_new(self, file: int) -> None:
        """Read keys after the known ones, and map their rows. A partial key was not committed, and is ignored."""
        known, total = len(self), os.fstat(file).st_size // KEY_BYTES
        if total < known:
            raise self._refusal(f"shrank from {known} rows to {total} while in use", "delete the folder")
        if total > known:
            keys = os.pread(file, (total - known) * KEY_BYTES, known * KEY_BYTES)
            self._rows = self._mapped(total)
            for start in range(0, len(keys), KEY_BYTES):
                self._row_of[keys[start : start + KEY_BYTES]] = len(self._row_of)
            if len(self) != total:
                raise self._refusal("names a row twice", "delete the folder")

    def _mapped(self, total: int) -> np.ndarray:
        try:
            rows = np.lib.format.open_memmap(self.folder / "rows.npy", mode="r")
        except (OSError, ValueError) as error:
            raise self._refusal(f"has a damaged rows.npy ({error})", "delete the folder") from error
        if rows.ndim != 2 or rows.dtype != np.float32 or len(rows) < total:
            found = f"rows.npy of shape {rows.shape} and type {rows.dtype} for {total} keys"
            raise self._refusal(f"has {found}", "delete the folder")
        return rows

    def _write_rows(self, rows: Float[np.ndarray, "n D"]) -> None:
        """Puts rows behind the committed ones, over whatever a killed process left there."""
        if self._rows is not None and self._rows.shape[1] != rows.shape[1]:
            what = f"holds embeddings of width {self._rows.shape[1]} and was offered width {rows.shape[1]}"
            raise self._refusal(what, "give another folder")
        header = _npy_header((len(self) + len(rows), rows.shape[1]))
        file = os.open(self.folder / "rows.npy", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _write_all(file, rows.tobytes(), len(header) + 4 * len(self) * rows.shape[1])
            _write_all(file, header, 0)
            os.fsync(file)
        finally:
            os.close(file)

    def _refusal(self, problem: str, remedy: str) -> UsageError:
        return UsageError(f"embedding cache {self.folder} {problem}; {remedy}")


def _npy_header(shape: tuple[int, int]) -> bytes:
    """Header of a .npy file; its length does not depend on the number of rows, since numpy pads the first axis."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _write_all(file: int, data: bytes, offset: int) -> None:
    """Write all of `data`: os.pwrite may write only a part, at most 2 GiB."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
