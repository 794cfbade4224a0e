"""The cache folder: one folder an asset, which appears under its name only when it is whole."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capkit.errors import UsageError
from capkit.utils.checksums import changed_files, checksums_of, size_of
from capkit.utils.files import atomic_folder

ABOUT = "about.json"


def cache_dir() -> Path:
    """`CAPKIT_CACHE` where it is set, else ~/.cache/capkit."""
    return Path(os.environ.get("CAPKIT_CACHE") or Path.home() / ".cache" / "capkit").absolute()


def location(name: str) -> Path:
    """Where an asset lies, fetched or not."""
    return cache_dir() / name


def path(name: str, file: str | None = None) -> str:
    """The folder of an asset, or a file in it: for configs, so that they and checkpoints name no machine's path.

    Raises UsageError where it was not fetched, or where a file has another length than it had then.
    """
    found = location(name) / file if file else location(name)
    if not found.exists():
        raise UsageError(
            f"{name!r} is wanted in the cache, and {found} does not exist; fetch it with `capkit prepare data=stamps`, "
            "or set CAPKIT_CACHE to the folder that holds it"
        )
    for item, checksum in _checksums(name).items():
        size = size_of(checksum)
        if file in (None, item) and (problem := _other_length(location(name) / item, size)):
            raise UsageError(f"{location(name) / item} is damaged: {problem}; `capkit prepare data=stamps` mends it")
    return str(found)


def damage(name: str) -> str | None:
    """What is wrong with an asset that is there; None where every file is as it was fetched.

    One that was fetched before checksums were kept is taken as it is.
    """
    try:
        checksums = _checksums(name)
        changed = changed_files(location(name), checksums)
    except UsageError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return f"{changed[0]} and others are not as fetched: {len(changed)} in all" if changed else None


def _checksums(name: str) -> dict[str, str]:
    """Of each file of an asset, by its path in it; nothing where none were kept."""
    about = location(name) / ABOUT
    if not about.is_file():
        return {}
    try:
        return dict(json.loads(about.read_bytes()).get("checksums", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{about} is damaged; `capkit prepare data=stamps` fetches the asset anew") from error


def _other_length(file: Path, size: int) -> str | None:
    if not file.is_file():
        return "it is gone"
    found = file.stat().st_size
    return None if found == size else f"it has {found:,} bytes, and had {size:,}"


@contextmanager
def building(name: str, about: dict[str, Any]) -> Iterator[Path]:
    """A temporary folder that becomes the asset `name` when the block ends well, and is deleted when it does not.

    `about` (source, version ...) is written into it as about.json, with the checksums of all files.
    """
    target = location(name)
    if target.exists() and not (target / ABOUT).is_file():
        raise UsageError(f"{target} was not made by capkit: it has no {ABOUT}; move it away, or set CAPKIT_CACHE")
    with atomic_folder(target, is_stale=lambda: True) as folder:
        yield folder
        text = json.dumps({**about, "checksums": checksums_of(folder)}, indent=1)
        (folder / ABOUT).write_text(text, encoding="utf-8")
        _open_to_all(folder)


def _open_to_all(folder: Path) -> None:
    """Readable for everyone who shares the cache: temporary folders and safetensors files are made for one user."""
    for inner in (folder, *folder.rglob("*")):
        inner.chmod(0o755 if inner.is_dir() else 0o644)
