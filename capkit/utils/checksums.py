"""Checksums of cached files, against accidental damage, not against tampering."""

import zlib
from collections.abc import Mapping
from pathlib import Path


def crc32_and_size(path: Path) -> str:
    """CRC-32 in hexadecimal, and size in bytes; four times as fast as a cryptographic hash."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
        return f"{crc:08x}-{file.tell()}"


def checksums_of(folder: Path) -> dict[str, str]:
    """Checksum of each file in a folder, at any depth, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): crc32_and_size(path) for path in files}


def changed_files(folder: Path, checksums: Mapping[str, str]) -> list[str]:
    """Files that differ from what `checksums_of` found. Raises OSError if one is missing."""
    return [name for name, checksum in checksums.items() if crc32_and_size(folder / name) != checksum]


def size_of(checksum: str) -> int:
    """Size in bytes of the file with this checksum."""
    return int(checksum.partition("-")[2])
