"""Vectors of a user's own .npy files: a row for each picture or caption, in their order."""

import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Float

from capkit.errors import UsageError


def file_digest(path: str | Path) -> str:
    """A hash of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def read_features(path: str | Path, num_rows: int, of: str) -> Float[np.ndarray, "N D"]:
    """The vectors of a .npy file, normalised, in float32.

    Raises UsageError unless there are `num_rows` rows, one for each of the `of` ("records"), none zero or not finite.
    """
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path} is no .npy file of numbers ({error}); write it with numpy.save") from error
    if rows.ndim != 2 or rows.dtype.kind != "f" or len(rows) != num_rows:
        raise UsageError(
            f"{path}: expected {num_rows} rows of floating-point numbers, one for each of the {of} in their order, got "
            f"shape {rows.shape} of {rows.dtype}; make it of this data"
        )
    vectors = np.array(rows, np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        place = int(np.argmin(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
        raise UsageError(f"{path}: row {place} (from 0) is zero or not finite; it cannot be compared: make it again")
    return (vectors / lengths).astype(np.float32)
