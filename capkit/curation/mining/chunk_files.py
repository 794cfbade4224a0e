"""Finished chunks of a long computation on disk: a file is there whole, or not at all."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from capkit.errors import UsageError


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as content:
            return dict(content)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UsageError(f"{path} is damaged ({error}); delete it: it will be computed again") from error


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Says what the chunks of a folder were computed from."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"about.json.{os.getpid()}.partial"
    partial.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / "about.json")


def read_about(folder: Path) -> dict[str, Any] | None:
    """None where the folder has no chunks yet. Raises UsageError where it has chunks and says not of what."""
    if (folder / "about.json").exists():
        return json.loads((folder / "about.json").read_text(encoding="utf-8"))
    if any(folder.glob("chunk-*")):
        raise UsageError(f"{folder} holds chunks and no about.json that says of what; delete it")
    return None
