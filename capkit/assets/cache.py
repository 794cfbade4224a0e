"""The cache folder: one folder an asset, which appears under its name only when it is whole."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capkit.errors import UsageError

ABOUT = "about.json"


def cache_dir() -> Path:
    """`CAPKIT_CACHE` where it is set, else ~/.cache/capkit."""
    return Path(os.environ.get("CAPKIT_CACHE") or Path.home() / ".cache" / "capkit").absolute()


def location(name: str) -> Path:
    """Where an asset lies, fetched or not."""
    return cache_dir() / name


def path(name: str, file: str | None = None) -> str:
    """The folder of an asset, or a file in it: for configs, so that they and checkpoints name no machine's path.

    Raises UsageError where it was not fetched.
    """
    found = location(name) / file if file else location(name)
    if not found.exists():
        raise UsageError(
            f"{name!r} is wanted in the cache, and {found} does not exist; fetch it with `capkit prepare data=stamps`, "
            "or set CAPKIT_CACHE to the folder that holds it"
        )
    return str(found)


@contextmanager
def building(name: str, about: dict[str, Any]) -> Iterator[Path]:
    """A temporary folder that becomes the asset `name` when the block ends well, and is deleted when it does not.

    `about` (source, version, checksums) is written into it as about.json.
    """
    target = location(name)
    if target.exists() and not (target / ABOUT).is_file():
        raise UsageError(f"{target} was not made by capkit: it has no {ABOUT}; move it away, or set CAPKIT_CACHE")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=target.parent))
    try:
        yield partial
        (partial / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
        _open_to_all(partial)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _open_to_all(folder: Path) -> None:
    """Readable for everyone who shares the cache: temporary folders and safetensors files are made for one user."""
    for inner in (folder, *folder.rglob("*")):
        inner.chmod(0o755 if inner.is_dir() else 0o644)
