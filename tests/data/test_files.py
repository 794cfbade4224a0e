import io
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from capkit.data.files import ImageFiles
from capkit.data.images import BadImage


def png_bytes(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_shard(path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_shard_members_are_read_by_name(tmp_path):
    write_shard(tmp_path / "s.tar", {"a.png": png_bytes(1), "sub/b.png": png_bytes(2)})
    files = ImageFiles(tmp_path)
    assert files.load("s.tar::sub/b.png")[0, 0].tolist() == [2, 0, 0]
    assert files.load(str(tmp_path / "s.tar::a.png"))[0, 0].tolist() == [1, 0, 0]
    assert files.size("s.tar::a.png") == (3, 2)


def test_file_name_with_colons_is_a_plain_file(tmp_path):
    (tmp_path / "x::y.png").write_bytes(png_bytes(7))
    assert ImageFiles(tmp_path).load("x::y.png")[0, 0].tolist() == [7, 0, 0]


@pytest.mark.parametrize(
    "reference",
    [
        "s.tar::none.png",
        "none.tar::a.png",
        "zipped.tar::a.png",
        "text.tar::a.png",
        "pipe.tar::a.png",
        "s.tar::half \ud83d.png",
        "half \ud83d.tar::a.png",
        "a\0b.tar::a.png",
        "a\0b.png",
        "half \ud83d.png",
        "pipe.tar",
        ".",
        None,
    ],
)
def test_what_is_not_there_is_a_bad_image(tmp_path, reference):
    write_shard(tmp_path / "s.tar", {"a.png": png_bytes(1)})
    write_shard(tmp_path / "zipped.tar", {"a.png": png_bytes(1)}, "w:gz")
    (tmp_path / "text.tar").write_text("not a tar" * 100)
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(BadImage):
        ImageFiles(tmp_path).load(reference)


def test_truncated_shard_gives_bad_images_for_its_lost_part(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    write_shard(tmp_path / "s.tar", {"a.png": png_bytes(1), "b.png": buffer.getvalue()})
    whole = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[:4096])
    files = ImageFiles(tmp_path)
    with pytest.raises(BadImage):
        files.load("s.tar::b.png")
