"""Downloads through the package managers that a machine has, without installing anything, with checksums."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from capkit.assets.cache import cache_dir
from capkit.errors import UsageError


def downloads_dir() -> Path:
    """Where fetched packages are kept; a package put there by hand is taken instead of fetching it."""
    return cache_dir() / "downloads"


def sha256(file: Path) -> str:
    """The checksum of a file, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def check_sha256(file: Path, wanted: str) -> None:
    """Raises UsageError if a file's SHA-256 differs from `wanted`."""
    found = sha256(file)
    if found != wanted:
        raise UsageError(
            f"{file} is damaged or another file: expected SHA-256 {wanted}, got {found}; delete it and fetch again"
        )


def pip_wheel(package: str, version: str, filename: str, digest: str) -> Path:
    """A wheel from PyPI (or the index pip is set to), downloaded with `pip download`, checked, and kept."""
    kept = downloads_dir() / filename
    if not kept.exists():
        with _landing() as folder:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries=1"]
            _run([*command, "--dest", str(folder), f"{package}=={version}"], folder, f"{package}=={version}", kept)
            _keep(folder / filename, digest)
    check_sha256(kept, digest)
    return kept


def apt_package(package: str, known: dict[str, str]) -> tuple[Path, str]:
    """Download a .deb of Debian or Ubuntu with `apt-get download`; returns the file and its version.

    `known` maps versions to checksums. A mirror may have a newer version, which is accepted; the caller warns. Raises
    UsageError without apt-get or network, or if the file of a known version differs.
    """
    kept = _newest(downloads_dir(), package)
    if kept is None:
        with _landing() as folder:
            _apt_download(package, folder)
            fetched = _newest(folder, package)
            assert fetched is not None, "apt-get succeeded and left no file"
            kept = _keep(fetched, known.get(deb_version(fetched)))
    version = deb_version(kept)
    if version in known:
        check_sha256(kept, known[version])
    return kept, version


def deb_version(file: Path) -> str:
    """The version in a package file's name; apt writes the colon of an epoch as %3a."""
    return file.name.split("_")[1].replace("%3a", ":")


def _apt_download(package: str, folder: Path) -> None:
    by_hand = downloads_dir() / f"{package}_VERSION_all.deb"
    if shutil.which("apt-get") is None:
        raise UsageError(
            f"the Debian package {package} is needed, but this machine has no apt-get; "
            f"download its .deb elsewhere (packages.debian.org/{package}) and save it as {by_hand}"
        )
    command = ["apt-get", "download", package]
    try:
        _run(command, folder, package, by_hand)
    except UsageError as error:
        if "Unable to locate package" not in str(error) and "No packages found" not in str(error):
            raise
        if os.geteuid() != 0:
            raise UsageError(
                f"apt-get knows no package {package}: its lists are missing or old; run `sudo apt-get update`, "
                "then this command again"
            ) from error
        _run(["apt-get", "update"], folder, "the package lists", by_hand)
        _run(command, folder, package, by_hand)


def _run(command: list[str], folder: Path, what: str, by_hand: Path) -> None:
    """Run a downloader in a folder, showing its progress. Raises UsageError with its last error message."""
    try:
        done = subprocess.run(command, cwd=folder, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    except OSError as error:
        raise UsageError(f"{what} could not be downloaded: {command[0]} cannot be run ({error})") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        complaints = [line for line in lines if line.startswith(("E:", "ERROR:"))] or lines[-1:]
        raise UsageError(
            f"{what} could not be downloaded: {'; '.join(complaints) or f'status {done.returncode}'} "
            f"(`{' '.join(command[:4])} ...`); it needs the network: try again, or download the file elsewhere and put "
            f"it there as {by_hand}"
        )


@contextmanager
def _landing() -> Iterator[Path]:
    """A temporary folder on the file system of the downloads, so that a complete file can be renamed into place."""
    downloads_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=downloads_dir()) as folder:
        yield Path(folder)


def _keep(file: Path, digest: str | None) -> Path:
    if not file.exists():
        raise UsageError(f"expected the download {file.name}, got {sorted(p.name for p in file.parent.iterdir())}")
    if digest is not None:
        check_sha256(file, digest)
    return file.rename(downloads_dir() / file.name)


def _newest(folder: Path, package: str) -> Path | None:
    found = sorted(folder.glob(f"{package}_*_*.deb"), key=lambda file: file.stat().st_mtime)
    return found[-1] if found else None
