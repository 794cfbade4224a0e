"""Members of webdataset tars: KEY.jpg, KEY.json, KEY.txt; one group of equal KEYs a sample, in the tar's order.

A member's KEY ends at the first dot of its last name (webdataset's `base_plus_ext`).
"""

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import xxhash

from capkit.data.images import EXTENSIONS, BadImage, format_of
from capkit.data.jpeg import read_picture
from capkit.data.records import Caption, Record, record_from_row, row_of
from capkit.data.shard_index import Entry, hash_of
from capkit.errors import UsageError
from capkit.text.caption_text import caption_texts
from capkit.utils.text_files import decode, parse_json, shown

_LONGEST_NAME = 180
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "JPEG2000": "jp2"}


def member_name(key: str) -> str:
    """A record's key as a name of tar members: dots and what file systems dislike as %XX, long ones cut and hashed."""
    name = quote(key, safe="/-_", errors="surrogatepass").replace(".", "%2E")
    if name.startswith("/") or "//" in name or name.endswith("/"):
        name = name.replace("/", "%2F")
    digest = xxhash.xxh3_64_hexdigest(key.encode("utf-8", "surrogatepass"))
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}-{digest}"


def unusable(data: bytes) -> str | None:
    """Why a picture's bytes cannot be decoded; None if they can."""
    try:
        read_picture(data, lambda height, width: 0.0)  # all of the file is read, at the smallest size
    except BadImage as problem:
        return str(problem)
    return None


class TarWriter:
    """Write records with their pictures to an open file. The same records give the same bytes."""

    def __init__(self, file: BinaryIO, number: int, name: str) -> None:
        """`number` and `name`, relative to the index, are the tar's."""
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.GNU_FORMAT)
        self._number, self._name = number, name

    def __enter__(self) -> "TarWriter":
        return self

    def __exit__(self, *raised: object) -> None:
        if raised[1] is None:
            self._tar.close()

    def add(self, record: Record, picture: bytes) -> Entry:
        """Add KEY.jpg (or the ending of its format) and KEY.json."""
        name = member_name(record.key)
        kind = format_of(picture)
        file = f"{name}.{_SUFFIXES.get(kind, kind.lower())}"
        row = row_of(record)
        try:
            described = json.dumps({**row, "image": file}).encode()
        except (TypeError, ValueError) as error:
            raise UsageError(f"record {record.key!r}: expected data that JSON can hold, got {error}") from error
        offset = self._member(file, picture)
        self._member(f"{name}.json", described)
        placed = {**row, "image": f"{self._name}::{file}"}
        return Entry(placed, self._number, offset, len(picture), hash_of(picture))

    def _member(self, name: str, data: bytes) -> int:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))
        return self._tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def read_tar(path: Path, number: int, name: str) -> Iterator[Entry]:
    """The samples of a tar that hold a picture. Captions are the JSON's `captions` or `caption`, or the text's lines.

    A tar that `capkit shard` wrote gives its own records; else a record's key is TAR/KEY, since many tars count from 0.
    Raises UsageError for a file that is no whole, uncompressed tar.
    """
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for key, members in _samples(tar):
                    entry = _entry(file, path, key, members, number, name)
                    if entry is not None:
                        yield entry
                if os.pread(file.fileno(), tarfile.BLOCKSIZE, tar.offset) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError(
                        f"no end mark at byte {tar.offset}"
                    )  # tarfile takes a cut header as the end
        except tarfile.TarError as error:
            raise UsageError(
                f"{path}: expected a whole, uncompressed tar, got {error}; download it again, or move it elsewhere"
            ) from error


Members = dict[str, tarfile.TarInfo]


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, Members]]:
    """Neighbouring members of equal KEY, by their endings in lower case."""
    current, members = None, Members()
    for info in tar:
        found = _NAME.fullmatch(info.name) if info.isfile() else None
        if found is None:
            continue
        if found[1] != current and members:
            yield str(current), members
            members = {}
        current = found[1]
        members[found[2].lower()] = info
    if members:
        yield str(current), members


def _entry(file: BinaryIO, path: Path, key: str, members: Members, number: int, name: str) -> Entry | None:
    picture = next((info for ending, info in members.items() if f".{ending}" in EXTENSIONS), None)
    if picture is None:
        return None
    where = f"{path}: {key}"

    def content(info: tarfile.TarInfo) -> bytes:
        data = os.pread(file.fileno(), info.size, info.offset_data)
        if len(data) < info.size:
            raise UsageError(f"{path}: expected a whole tar, got one that ends within {info.name}; download it again")
        return data

    row = parse_json(decode(content(members["json"]), where), f"{where}.json") if "json" in members else {}
    if not isinstance(row, dict):
        raise UsageError(f"{where}.json: expected one JSON object, got {shown(row)}; repair or remove the sample")
    reference = f"{name}::{picture.name}"
    if "key" in row and "captions" in row:
        record = record_from_row({**row, "image": reference}, f"{where}.json")
    else:
        texts = _texts(decode(content(members["txt"]), where), f"{where}.txt") if "txt" in members else None
        if texts is None:
            given = row.get("caption") or []
            texts = caption_texts([given] if isinstance(given, str) else given, f"{where}.json")
        metadata = {field: row[field] for field in ("url",) if isinstance(row.get(field), str)}
        record = Record(f"{path.stem}/{key}", reference, [Caption(text) for text in texts], metadata=metadata)
    data = content(picture)
    reason = unusable(data)
    if reason is not None:
        return Entry(row_of(record), unusable=reason)
    return Entry(row_of(record), number, picture.offset_data, picture.size, hash_of(data))


def _texts(text: str, where: str) -> Sequence[str]:
    return [part for line in text.splitlines() if line.strip() for part in caption_texts(line, where)]
