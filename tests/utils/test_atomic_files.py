"""Files and folders that are whole or absent."""

import os

import pytest

from capkit.utils.files import TEMPORARY, apply_umask, atomic_folder, atomic_path, write_atomically, write_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def mode(path):
    return path.stat().st_mode & 0o777


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_file_takes_its_name_when_the_block_ends_and_not_before(tmp_path):
    (tmp_path / "x").write_text("old")
    with atomic_path(tmp_path / "x") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "x").read_text() == "old" and temporary.match(TEMPORARY)
    assert (tmp_path / "x").read_text() == "new" and names(tmp_path) == ["x"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_old_file_and_no_rest(error, tmp_path):
    (tmp_path / "x").write_text("old")
    with pytest.raises(error), atomic_path(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise error
    assert (tmp_path / "x").read_text() == "old" and names(tmp_path) == ["x"]


def test_content_and_name_are_flushed_to_the_disk_in_this_order(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(os.readlink(f"/proc/self/fd/{file}")))
    write_atomically(tmp_path / "x", "text")
    with atomic_path(tmp_path / "y", flush=False) as temporary:
        temporary.write_text("text")
    assert [path.rpartition("/")[0] for path in flushed] == [str(tmp_path), str(tmp_path.parent)]
    assert os.path.basename(flushed[0]).startswith(".x.")


def test_a_file_that_a_library_makes_private_gets_the_umasks_mode(tmp_path, umask):
    with atomic_path(tmp_path / "new" / "x") as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    assert mode(tmp_path / "new" / "x") == 0o640
    (tmp_path / "new" / "x").chmod(0o600)
    apply_umask(tmp_path)
    assert mode(tmp_path / "new" / "x") == 0o640


def test_a_folder_takes_its_name_when_the_block_ends_with_the_umasks_mode(tmp_path, umask):
    with atomic_folder(tmp_path / "a" / "x", is_stale=lambda: True) as folder:
        (folder / "file").write_text("new")
        assert not (tmp_path / "a" / "x").exists()
    assert names(tmp_path / "a") == ["x"] and names(tmp_path / "a" / "x") == ["file"]
    assert mode(tmp_path / "a" / "x") == 0o750


@pytest.mark.parametrize("old", ["folder", "file", "link"])
def test_what_stands_there_is_replaced_where_it_is_stale_and_stays_otherwise(old, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "user").write_text("")
    path = tmp_path / "x"
    if old == "folder":
        path.mkdir()
        (path / "user").write_text("")
    elif old == "file":
        path.write_text("")
    else:
        path.symlink_to("elsewhere")
    before = path.lstat().st_ino
    for is_stale in (False, True):
        with atomic_folder(path, is_stale=lambda answer=is_stale: answer) as folder:
            (folder / "new").write_text("")
        assert (path.lstat().st_ino == before) == (not is_stale)
        assert names(tmp_path) == ["elsewhere", "x"] and names(tmp_path / "elsewhere") == ["user"]
    assert names(path) == ["new"]


def test_a_folder_whose_block_fails_is_removed_and_the_old_one_stays(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "x", is_stale=lambda: True) as folder:
        (folder / "half").write_text("")
        raise RuntimeError
    assert names(tmp_path) == ["x"] and names(tmp_path / "x") == []


def test_json_is_written_indented_with_a_last_newline_and_other_letters_as_asked(tmp_path):
    write_json(tmp_path / "escaped.json", {"café": [1]})
    write_json(tmp_path / "plain.json", {"café": [1]}, ensure_ascii=False)
    assert (tmp_path / "escaped.json").read_text() == '{\n "caf\\u00e9": [\n  1\n ]\n}\n'
    assert (tmp_path / "plain.json").read_text(encoding="utf-8") == '{\n "café": [\n  1\n ]\n}\n'
