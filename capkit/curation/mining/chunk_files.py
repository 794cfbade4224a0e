"""Finished chunks of a long computation on disk: a file is there whole, or not at all."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from capkit.errors import UsageError
from capkit.utils.files import atomic_path


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as content:
            return dict(content)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UsageError(f"{path} is damaged ({error}); delete it: it will be computed again") from error
