"""The cache folder, with one folder per asset, which appears only when complete."""

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
    """`CAPKIT_CACHE` if it is set, else ~/.cache/capkit."""
    return Path(os.environ.get("CAPKIT_CACHE") or Path.home() / ".cache" / "capkit").absolute()


def location(name: str) -> Path:
    """The folder of an asset, whether or not it was fetched."""
    return cache_dir() / name


def path(name: str, file: str | None = None) -> str:
    """An asset's folder, or a file in it. Used in configs, so that they and checkpoints contain no machine's paths.

    Raises UsageError if the asset was not fetched, or if a file's size has changed since.
    """
    found = location(name) / file if file else location(name)
    if not found.exists():
        raise UsageError(
            f"expected {name!r} in the cache, but {found} does not exist; fetch it with `{_command(name)}`, "
            "or set CAPKIT_CACHE to the folder that holds it"
        )
    for item, checksum in _checksums(name).items():
        size = size_of(checksum)
        if file in (None, item) and (problem := _other_length(location(name) / item, size)):
            raise UsageError(f"{location(name) / item} is damaged: {problem}; run `{_command(name)}` to repair it")
    return str(found)


def _command(name: str) -> str:
    """What fetches an asset; the data config of emoji has their name, all others come with the stamps."""
    return f"capkit prepare data={'emoji' if name.startswith('emoji') else 'stamps'}"


def damage(name: str) -> str | None:
    """What is wrong with an existing asset; None if every file is as fetched.

    Assets fetched before checksums were recorded are trusted.
    """
    try:
        checksums = _checksums(name)
        changed = changed_files(location(name), checksums)
    except UsageError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return f"{changed[0]} and others are not as fetched: {len(changed)} in all" if changed else None


def is_asset(folder: Path) -> bool:
    """Whether a folder is an asset: its about.json has checksums of the files, that of exported weights has none."""
    try:
        return "checksums" in json.loads((folder / ABOUT).read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def _checksums(name: str) -> dict[str, str]:
    """Checksums of an asset's files, by path in it; empty if none were recorded."""
    about = location(name) / ABOUT
    if not about.is_file():
        return {}
    try:
        return dict(json.loads(about.read_bytes()).get("checksums", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{about} is damaged; run `{_command(name)}` to fetch the asset again") from error


def _other_length(file: Path, size: int) -> str | None:
    if not file.is_file():
        return "it is gone"
    found = file.stat().st_size
    return None if found == size else f"it has {found:,} bytes, and had {size:,}"


@contextmanager
def building(name: str, about: dict[str, Any]) -> Iterator[Path]:
    """Context that yields a temporary folder, which becomes the asset `name` on success and is deleted on an error.

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
    """Make a folder readable for everyone who shares the cache; temporary folders and safetensors files are private."""
    for inner in (folder, *folder.rglob("*")):
        inner.chmod(0o755 if inner.is_dir() else 0o644)
