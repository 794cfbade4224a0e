"""about.json of a run: when and how each attempt was started, and with which versions."""

import platform
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import capkit
from capkit.errors import UsageError
from capkit.utils.console import command_line
from capkit.utils.files import write_json
from capkit.utils.text_files import read_json

NAME = "about.json"
PACKAGES = ("torch", "lightning", "transformers", "peft", "deepspeed")


def record_start(folder: Path, attempt: int) -> None:
    """Add this attempt to the folder's about.json. A damaged file is begun anew, since nothing depends on it."""
    starts = [start for start in read_starts(folder) if start["attempt"] != attempt]
    versions = dict(_versions())
    told = {
        "attempt": attempt,
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": command_line(),
        "versions": {"capkit": capkit.__version__, "python": platform.python_version(), **versions},
    }
    write_json(folder / NAME, [*starts, told], ensure_ascii=False)


def read_starts(folder: Path) -> list[dict[str, Any]]:
    """The attempts in the order of their starts; none where the run is older than this file, or the file is damaged."""
    path = folder / NAME
    if not path.exists():
        return []
    try:
        found = read_json(path, "the run folder")
    except UsageError:
        return []
    wanted = {"attempt", "started", "command", "versions"}
    is_whole = isinstance(found, list) and all(isinstance(start, dict) and wanted <= start.keys() for start in found)
    return found if is_whole else []


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
