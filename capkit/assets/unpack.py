"""Extracts files from wheels and Debian packages, without installing them and without dpkg."""

import io
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from capkit.errors import UsageError

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60


def unpack_wheel(wheel: Path, prefix: str, folder: Path) -> None:
    """Copy the files below `prefix` (a folder in the wheel, ending in "/") into `folder`."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(prefix) and not name.endswith("/")]
        if not names:
            raise UsageError(f"{wheel} has no files below {prefix!r}; it is not the expected package")
        for name in names:
            relative = PurePosixPath(name[len(prefix) :])
            if ".." in relative.parts or relative.is_absolute():
                raise UsageError(f"{wheel} holds a file outside its folder: {name!r}; delete it and fetch again")
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)


def unpack_deb(deb: Path, wanted: Callable[[str], str | None], folder: Path) -> int:
    """Copy regular files of a Debian package into `folder`; returns how many.

    `wanted` maps a file's path (`usr/share/...`) to its path below `folder`, or to None to skip it.
    """
    with tempfile.TemporaryDirectory() as scratch, _data_tar(deb, Path(scratch)) as archive:
        count = 0
        for member in archive:
            name = str(PurePosixPath(member.name))
            target = wanted(name) if member.isfile() and ".." not in PurePosixPath(name).parts else None
            content = archive.extractfile(member) if target else None
            if target and content:
                (folder / target).parent.mkdir(parents=True, exist_ok=True)
                with (folder / target).open("wb") as copy:
                    shutil.copyfileobj(content, copy)
                count += 1
    return count


def _data_tar(deb: Path, scratch: Path) -> tarfile.TarFile:
    """The package's data archive: a .deb is an `ar` archive with a member data.tar.* (deb(5))."""
    with deb.open("rb") as file:
        if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
            raise UsageError(f"{deb} is not a Debian package; delete it and fetch again")
        while len(header := file.read(_AR_HEADER)) == _AR_HEADER:
            name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
            if name.startswith("data.tar"):
                if name.endswith(".zst"):
                    return _zstd_tar(deb, scratch)
                return tarfile.open(fileobj=io.BytesIO(file.read(size)), mode="r:*")
            file.seek(size + size % 2, io.SEEK_CUR)
    raise UsageError(f"{deb} has no data archive: it is cut off; delete it and fetch again")


def _zstd_tar(deb: Path, scratch: Path) -> tarfile.TarFile:
    # Ubuntu compresses with zstd, which Python reads from 3.14 on; machines with such packages usually have dpkg-deb.
    if shutil.which("dpkg-deb") is None:
        raise UsageError(f"{deb} is compressed with zstd, which needs dpkg-deb; use Debian's package instead")
    with (scratch / "data.tar").open("wb") as data:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=data, check=True)
    return tarfile.open(scratch / "data.tar")
