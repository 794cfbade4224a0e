"""Finished chunks of a long computation on disk: a file is there whole, or not at all."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from capkit.errors import UsageError
from capkit.utils.files import atomic_path
from capkit.utils.store import claim_folder


def kept_chunks(
    folder: Path,
    about: Mapping[str, Any],
    num_chunks: int,
    compute: Callable[[int], Mapping[str, np.ndarray]],
    where: str,
    remedy: str,
) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays of each chunk in order: read from `folder` where they are finished, else computed and kept there.

    `about` says what they depend on. Raises UsageError if the folder holds chunks of something else: `where` names it
    in messages, `remedy` says what to do.
    """
    claim_folder(folder, about, "chunk-*", where, remedy)
    for number in range(num_chunks):
        path = folder / f"chunk-{number:06d}.npz"
        if path.exists():
            yield read_arrays(path)
            continue
        arrays = compute(number)
        write_arrays(path, arrays)
        yield arrays


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as content:
            return dict(content)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UsageError(f"{path} is damaged ({error}); delete it: it will be computed again") from error
