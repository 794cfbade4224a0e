"""Splits on disk: equal however they were built, whole or absent."""

import errno
import json
import multiprocessing
import os
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from capkit.errors import UsageError
from capkit.sceneworld import cache
from capkit.sceneworld.cache import CachedSplit, UnbuiltSplit
from capkit.sceneworld.language.captions import caption, references
from capkit.sceneworld.world.options import WorldOptions
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import make_scene

FILES = {"pixels.npy", "scenes.jsonl", "offsets.npy", "meta.json"}


def build_split(*scenes: Any, cache_dir: Path, num_workers: int = 0, **more: Any) -> CachedSplit:
    return cache.build_split(UnbuiltSplit(*scenes, **more), cache_dir, num_workers)


def contents(path: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in path.iterdir()}


def test_rows_are_the_scenes_of_the_split(tmp_path: Path) -> None:
    data = build_split(0, "val", 20, cache_dir=tmp_path)
    assert len(data) == 20 and data.pixels.shape == (20, 64, 64, 3)
    for index in (0, 7, 19):
        scene = make_scene(WorldOptions(), 0, "val", index)
        assert data.scene(index) == scene and (data.image(index) == render(scene)).all()
        assert data.references(index) == references(scene)
        assert data.stated_facts(index) == list(caption(scene, "human").facts)
    with pytest.raises(IndexError):
        data.row(20)


@pytest.mark.integration
def test_serial_and_parallel_builds_are_byte_identical(tmp_path: Path) -> None:
    serial = build_split(0, "train", 520, cache_dir=tmp_path / "a", num_workers=0)
    parallel = build_split(0, "train", 520, cache_dir=tmp_path / "b", num_workers=2)
    assert contents(serial.path) == contents(parallel.path)
    assert set(contents(serial.path)) == FILES
    assert [p.name for p in (tmp_path / "b").iterdir()] == [parallel.path.name]


def test_a_second_call_reads_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_split(0, "val", 5, cache_dir=tmp_path)

    def fail(*args: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(cache, "_build", fail)
    assert build_split(0, "val", 5, cache_dir=tmp_path).path == first.path


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1}, {"split": "test"}, {"count": 6}, {"size": 96}, {"options": WorldOptions(max_objects=4)},
        {"style": "dense"},
    ],
)  # fmt: skip
def test_any_change_of_the_options_has_its_own_folder(tmp_path: Path, change: dict) -> None:
    arguments = {"seed": 0, "split": "val", "count": 5, "cache_dir": tmp_path}
    assert build_split(**arguments).path != build_split(**(arguments | change)).path


def test_a_new_generator_version_does_not_read_old_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = build_split(0, "val", 3, cache_dir=tmp_path)
    monkeypatch.setattr(cache, "GENERATOR_VERSION", cache.GENERATOR_VERSION + 1)
    assert build_split(0, "val", 3, cache_dir=tmp_path).path != old.path


def _build(folder: str) -> None:
    build_split(0, "val", 300, cache_dir=folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", sorted(FILES))
@pytest.mark.parametrize("damage", [cut, flip, lambda file: file.write_bytes(b""), Path.unlink])
def test_a_damaged_split_is_made_anew(tmp_path: Path, file: str, damage: Callable[[Path], object]) -> None:
    whole = build_split(0, "val", 4, cache_dir=tmp_path)
    before, row = contents(whole.path), whole.row(3)
    damage(whole.path / file)
    with pytest.warns(UserWarning, match=f"{whole.path} is damaged: .*its scenes are generated again"):
        again = build_split(0, "val", 4, cache_dir=tmp_path)
    assert contents(again.path) == before and again.row(3) == row
    assert [item.name for item in tmp_path.iterdir()] == [again.path.name]


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"[]", b"null", b"{}", b'{"checksums": {}}'])
def test_whatever_stands_in_the_place_of_a_split_is_replaced(tmp_path: Path, content: bytes | None) -> None:
    path = build_split(0, "val", 4, cache_dir=tmp_path).path
    before = contents(path)
    shutil.rmtree(path)
    if content is None:
        path.write_text("a file")
    else:
        path.mkdir()
        (path / "meta.json").write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged"):
        build_split(0, "val", 4, cache_dir=tmp_path)
    assert contents(path) == before


@pytest.mark.integration
@pytest.mark.parametrize("start", ["empty", "damaged"])
def test_two_processes_may_build_the_same_split_at_once(tmp_path: Path, start: str) -> None:
    if start == "damaged":
        cut(build_split(0, "val", 300, cache_dir=tmp_path).path / "offsets.npy")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_build, args=(str(tmp_path),)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(build_split(0, "val", 300, cache_dir=tmp_path)) == 300


def test_a_loser_of_the_race_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    winner = build_split(0, "val", 4, cache_dir=tmp_path)
    stands, before = winner.path.stat().st_ino, contents(winner.path)
    real, seen = cache._damage, []
    monkeypatch.setattr(cache, "_damage", lambda *args: real(*args) if seen else seen.append(args) or "not seen yet")
    with pytest.warns(UserWarning, match="not seen yet"):
        build_split(0, "val", 4, cache_dir=tmp_path)
    assert winner.path.stat().st_ino == stands
    assert contents(winner.path) == before and len(list(tmp_path.iterdir())) == 1


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot be written to .* give another folder: data.train.cache_dir"):
        build_split(0, "val", 4, cache_dir=tmp_path / "file")

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UsageError, match="No space left on device"):
        build_split(0, "val", 4, cache_dir=tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_an_interrupted_build_leaves_nothing_that_could_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "_chunks", stop)
    with pytest.raises(KeyboardInterrupt):
        build_split(0, "val", 4, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_split_can_be_sent_to_a_worker(tmp_path: Path) -> None:
    data = build_split(0, "val", 4, cache_dir=tmp_path)
    copy = pickle.loads(pickle.dumps(data))
    assert copy.row(3) == data.row(3) and np.array_equal(copy.pixels, data.pixels)


def test_meta_says_what_the_split_was_made_from(tmp_path: Path) -> None:
    data = build_split(3, "holdout", 4, cache_dir=tmp_path)
    meta = json.loads((data.path / "meta.json").read_text())
    assert (meta["seed"], meta["split"], meta["count"]) == (3, "holdout", 4)
    assert meta["options"]["max_objects"] == 5


def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for arguments in (
        {"count": 0},
        {"count": 1, "num_workers": -1},
        {"count": 1, "style": "odd"},
        {"count": 1, "size": 8},
    ):
        with pytest.raises(UsageError):
            build_split(0, "val", cache_dir=tmp_path / "x", **arguments)
    assert not (tmp_path / "x").exists()
