"""A split on disk: generated once, in parallel, and read back lazily.

A folder holds `pixels.npy` (N H W 3, uint8), `scenes.jsonl` (scene, references and stated facts, a line each),
`offsets.npy` (where the lines start) and `meta.json` (what it was made from, and checksums of the others). It is
written under another name and renamed, so a folder with the final name is whole, also when two processes build the same
split at once. One that was cut or changed later is made anew.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from capkit.errors import UsageError
from capkit.sceneworld.language.captions import Detail, reference_captions
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import Scene, WorldOptions, make_scene
from capkit.utils.checksums import changed_files, checksums_of
from capkit.utils.console import phase
from capkit.utils.files import atomic_folder

GENERATOR_VERSION = 1  # raise it with any change of pictures or captions: old caches are then no longer read
_CHUNK = 100
_FILES = ("pixels.npy", "scenes.jsonl", "offsets.npy")
_ATTEMPTS = 3  # of several processes that replace one damaged folder, each may be in the way of another once


class CachedSplit:
    """The scenes of one split. Pixels are memory-mapped; rows of text are read when asked for. Can be pickled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pixels: UInt8[np.ndarray, "N H W 3"] = np.load(path / "pixels.npy", mmap_mode="r")
        self._offsets = np.load(path / "offsets.npy")
        self._file = os.open(path / "scenes.jsonl", os.O_RDONLY)

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedSplit, (self.path,)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def __len__(self) -> int:
        return len(self.pixels)

    def row(self, index: int) -> dict[str, Any]:
        """{"scene": plain data, "references": five texts, "stated_facts": what each of them states}."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        start, end = int(self._offsets[index]), int(self._offsets[index + 1])
        return json.loads(os.pread(self._file, end - start, start))

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return np.array(self.pixels[index])

    def scene(self, index: int) -> Scene:
        return Scene.from_dict(self.row(index)["scene"])

    def references(self, index: int) -> list[str]:
        return self.row(index)["references"]

    def stated_facts(self, index: int) -> list[str]:
        return self.row(index)["stated_facts"]


@dataclass(frozen=True)
class UnbuiltSplit:
    """The scenes of a split that is not on disk: each is made when it is asked for, and none is kept."""

    seed: int
    split: str
    size: int
    options: WorldOptions
    style: str
    detail: Detail | None

    def row(self, index: int) -> dict[str, Any]:
        """As `CachedSplit.row`."""
        return json.loads(_line_of(self._scene(index), self.style, self.detail))

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return render(self._scene(index), self.size)

    def _scene(self, index: int) -> Scene:
        return make_scene(self.options, self.seed, self.split, index)


def split_folder(
    seed: int,
    split: str,
    count: int,
    size: int = 64,
    options: WorldOptions | None = None,
    cache_dir: str | Path = "data/scenes",
    style: str = "human",
    detail: Detail | None = None,
) -> Path:
    """Where `build_split` puts the split of these arguments."""
    meta = _describe(seed, split, count, size, options or WorldOptions(), style, detail)
    return Path(cache_dir) / f"{split}-{seed}-{count}-{_key(meta)}"


def build_split(
    seed: int,
    split: str,
    count: int,
    size: int = 64,
    options: WorldOptions | None = None,
    cache_dir: str | Path = "data/scenes",
    num_workers: int = 0,
    style: str = "human",
    detail: Detail | None = None,
) -> CachedSplit:
    """The first `count` scenes of a split with pictures and references; generated unless the cache has them whole.

    The result does not depend on `num_workers` (0: in this process). `style` and `detail` are those of the references.

    Raises:
        UsageError: count < 1, num_workers < 0, or what `make_scene` and `caption` raise, before workers start; a cache
            that cannot be written.
    """
    options = options or WorldOptions()
    if count < 1 or num_workers < 0:
        raise UsageError(f"count >= 1 and num_workers >= 0 are wanted; count={count}, num_workers={num_workers} came")
    meta = _describe(seed, split, count, size, options, style, detail)
    path = split_folder(seed, split, count, size, options, cache_dir, style, detail)
    job = (seed, split, size, options, style, detail)
    for _ in range(_ATTEMPTS):
        if (damage := _damage(path, meta)) is None:
            try:
                return CachedSplit(path)
            except FileNotFoundError:  # another process, which found it damaged, replaces it
                continue
        if os.path.lexists(path):
            warnings.warn(f"{path} is damaged: {damage}; its scenes are drawn anew", stacklevel=2)
        _make_one(job, 0)
        try:
            _build(path, meta, job, count, size, num_workers)
        except OSError as error:
            raise UsageError(
                f"SceneWorld's scenes cannot be written to {path} ({error.strerror or error}); make room or give "
                "permission, or give another folder: data.train.cache_dir=DIR, and for the other splits"
            ) from error
    raise UsageError(f"{path} was written and cannot be read back whole ({damage}); check the disk")


_Job = tuple[int, str, int, WorldOptions, str, Detail | None]


def _describe(
    seed: int, split: str, count: int, size: int, options: WorldOptions, style: str, detail: Detail | None
) -> dict[str, Any]:
    return {
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "split": split,
        "count": count,
        "size": size,
        "options": asdict(options),
        "style": style,
        "detail": None if detail is None else asdict(detail),
    }


def _key(meta: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(meta, sort_keys=True).encode(), digest_size=8).hexdigest()


def _damage(path: Path, meta: dict[str, Any]) -> str | None:
    """What is wrong with a cache folder; None where it holds what was written, from `meta`."""
    try:
        found = json.loads((path / "meta.json").read_bytes())
        checksums = found.pop("checksums")
        if found != json.loads(json.dumps(meta)):
            return "it was made from something else"
        changed = changed_files(path, {name: checksums[name] for name in _FILES})
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "meta.json cannot be read, or has no checksums"
    return f"{', '.join(changed)}: not as written" if changed else None


def _make_one(job: _Job, index: int) -> tuple[np.ndarray, bytes]:
    seed, split, size, options, style, detail = job
    scene = make_scene(options, seed, split, index)
    return render(scene, size), _line_of(scene, style, detail)


def _line_of(scene: Scene, style: str, detail: Detail | None) -> bytes:
    captions = reference_captions(scene, style, detail)
    row = {
        "scene": scene.to_dict(),
        "references": [item.text for item in captions],
        "stated_facts": list(captions[0].facts),
    }
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def _make_chunk(job: _Job, path: str, start: int, end: int) -> list[bytes]:
    """Writes its rows of the pixel file, returns its lines."""
    pixels = np.load(path, mmap_mode="r+")
    lines = []
    for index in range(start, end):
        pixels[index], line = _make_one(job, index)
        lines.append(line)
    pixels.flush()
    return lines


def _build(path: Path, meta: dict[str, Any], job: _Job, count: int, size: int, num_workers: int) -> None:
    with atomic_folder(path, is_stale=lambda: _damage(path, meta) is not None) as folder:
        pixels = folder / "pixels.npy"
        np.lib.format.open_memmap(pixels, mode="w+", dtype=np.uint8, shape=(count, size, size, 3)).flush()
        with pixels.open("r+b") as file:  # a page of a memory map that finds no room later would kill the process
            os.posix_fallocate(file.fileno(), 0, pixels.stat().st_size)
        lengths = []
        with open(folder / "scenes.jsonl", "wb") as file, phase(f"drawing the {job[1]} scenes", count) as drawing:
            for lines in _chunks(job, str(pixels), count, num_workers):
                file.writelines(lines)
                lengths += [len(line) for line in lines]
                drawing.advance(len(lines))
        np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        text = json.dumps({**meta, "checksums": checksums_of(folder)}, indent=1, sort_keys=True)
        (folder / "meta.json").write_text(text)


def _chunks(job: _Job, path: str, count: int, num_workers: int) -> Iterator[list[bytes]]:
    spans = [(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    if num_workers == 0 or len(spans) == 1:
        for start, end in spans:
            yield _make_chunk(job, path, start, end)
        return
    # not fork: the parent may hold torch's threads and locks
    context = multiprocessing.get_context("spawn")
    # Ctrl-C at a terminal reaches them too: the parent alone ends the work.
    ignore = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(min(num_workers, len(spans)), mp_context=context, initializer=ignore) as pool:
        futures = [pool.submit(_make_chunk, job, path, start, end) for start, end in spans]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
