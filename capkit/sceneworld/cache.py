"""Cache of a split on disk: generated once, in parallel, and read lazily.

A folder holds `pixels.npy` (N H W 3, uint8), `scenes.jsonl` (scene, references and stated facts per line),
`offsets.npy` (start of each line) and `meta.json` (settings, and checksums of the other files). It is written under a
temporary name and renamed, so a folder with the final name is complete, even if two processes build the same split. A
folder truncated or changed later is rebuilt.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from capkit.errors import UsageError
from capkit.sceneworld.language.captions import Detail, reference_captions
from capkit.sceneworld.language.languages import GRAMMARS
from capkit.sceneworld.world.render import render
from capkit.sceneworld.world.scene import Scene, WorldOptions, make_scene
from capkit.utils.checksums import changed_files, checksums_of
from capkit.utils.console import phase
from capkit.utils.files import atomic_folder

GENERATOR_VERSION = 1  # increase with any change of pictures or captions, to invalidate old caches
_CHUNK = 100
_FILES = ("pixels.npy", "scenes.jsonl", "offsets.npy")
_ATTEMPTS = 3  # processes that replace the same damaged folder may each disturb another once


class CachedSplit:
    """The scenes of a cached split. Pixels are memory-mapped, rows are read on demand. Picklable."""

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
        """{"scene": plain data, "references": five texts, "stated_facts": the facts that each of them states}."""
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
    """The first `count` scenes of a split without a cache: each is generated on demand.

    `style`, `detail` and `dialect` (a key of `GRAMMARS`) apply to the references.
    """

    seed: int
    split: str
    count: int
    size: int = 64
    options: WorldOptions = field(default_factory=WorldOptions)
    style: str = "human"
    detail: Detail | None = None
    dialect: str | None = None

    def describe(self) -> dict[str, Any]:
        """Everything that the scenes depend on, as plain data; of English scenes as before there were dialects."""
        described = {"generator_version": GENERATOR_VERSION, **asdict(self)}
        if self.dialect is None:
            del described["dialect"]
        return described

    def folder(self, cache_dir: str | Path) -> Path:
        """The folder that `build_split` writes."""
        key = hashlib.blake2b(json.dumps(self.describe(), sort_keys=True).encode(), digest_size=8).hexdigest()
        return Path(cache_dir) / f"{self.split}-{self.seed}-{self.count}-{key}"

    def row(self, index: int) -> dict[str, Any]:
        """Like `CachedSplit.row`."""
        return json.loads(self._line_of(self._scene(index)))

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return render(self._scene(index), self.size)

    def image_and_line(self, index: int) -> tuple[UInt8[np.ndarray, "H W 3"], bytes]:
        """The picture of a scene, and its line of scenes.jsonl."""
        scene = self._scene(index)
        return render(scene, self.size), self._line_of(scene)

    def _scene(self, index: int) -> Scene:
        return make_scene(self.options, self.seed, self.split, index)

    def _line_of(self, scene: Scene) -> bytes:
        captions = reference_captions(scene, self.style, self.detail, GRAMMARS[self.dialect])
        row = {
            "scene": scene.to_dict(),
            "references": [item.text for item in captions],
            "stated_facts": list(captions[0].facts),
        }
        return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def build_split(unbuilt: UnbuiltSplit, cache_dir: str | Path, num_workers: int = 0) -> CachedSplit:
    """Return the cached split, generating it unless the cache has it intact.

    The result does not depend on `num_workers` (0: this process only).

    Raises:
        UsageError: count < 1, num_workers < 0, or what `make_scene` and `caption` raise, before workers start; a cache
            that cannot be written.
    """
    if unbuilt.count < 1 or num_workers < 0:
        raise UsageError(
            f"expected count >= 1 and num_workers >= 0, got count={unbuilt.count}, num_workers={num_workers}"
        )
    path, meta = unbuilt.folder(cache_dir), unbuilt.describe()
    for _ in range(_ATTEMPTS):
        if (damage := _damage(path, meta)) is None:
            try:
                return CachedSplit(path)
            except FileNotFoundError:  # another process is replacing the damaged folder
                continue
        if os.path.lexists(path):
            warnings.warn(f"{path} is damaged: {damage}; its scenes are generated again", stacklevel=2)
        unbuilt.image_and_line(0)
        try:
            _build(path, unbuilt, num_workers)
        except OSError as error:
            raise UsageError(
                f"SceneWorld's scenes cannot be written to {path} ({error.strerror or error}); make room or give "
                "permission, or give another folder: data.train.cache_dir=DIR, and for the other splits"
            ) from error
    raise UsageError(f"{path} was written but cannot be read back intact ({damage}); check the disk")


def _damage(path: Path, meta: dict[str, Any]) -> str | None:
    """Describe the damage of a cache folder; None if it is intact and was built from `meta`."""
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


def _make_chunk(unbuilt: UnbuiltSplit, path: str, start: int, end: int) -> list[bytes]:
    """Write a chunk's rows of the pixel file, and return its lines."""
    pixels = np.load(path, mmap_mode="r+")
    lines = []
    for index in range(start, end):
        pixels[index], line = unbuilt.image_and_line(index)
        lines.append(line)
    pixels.flush()
    return lines


def _build(path: Path, unbuilt: UnbuiltSplit, num_workers: int) -> None:
    meta, count, size = unbuilt.describe(), unbuilt.count, unbuilt.size
    with atomic_folder(path, is_stale=lambda: _damage(path, meta) is not None) as folder:
        pixels = folder / "pixels.npy"
        np.lib.format.open_memmap(pixels, mode="w+", dtype=np.uint8, shape=(count, size, size, 3)).flush()
        with pixels.open(
            "r+b"
        ) as file:  # reserve space now: on a full disk, writing to the memory map would kill the process
            os.posix_fallocate(file.fileno(), 0, pixels.stat().st_size)
        lengths = []
        with (
            open(folder / "scenes.jsonl", "wb") as file,
            phase(f"drawing the {unbuilt.split} scenes", count) as drawing,
        ):
            for lines in _chunks(unbuilt, str(pixels), num_workers):
                file.writelines(lines)
                lengths += [len(line) for line in lines]
                drawing.advance(len(lines))
        np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        text = json.dumps({**meta, "checksums": checksums_of(folder)}, indent=1, sort_keys=True)
        (folder / "meta.json").write_text(text)


def _chunks(unbuilt: UnbuiltSplit, path: str, num_workers: int) -> Iterator[list[bytes]]:
    spans = [(start, min(start + _CHUNK, unbuilt.count)) for start in range(0, unbuilt.count, _CHUNK)]
    if num_workers == 0 or len(spans) == 1:
        for start, end in spans:
            yield _make_chunk(unbuilt, path, start, end)
        return
    # Not fork: the parent may hold torch's threads and locks.
    context = multiprocessing.get_context("spawn")
    # Ctrl-C in a terminal reaches the workers too, but only the parent shall stop the work.
    ignore = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(min(num_workers, len(spans)), mp_context=context, initializer=ignore) as pool:
        futures = [pool.submit(_make_chunk, unbuilt, path, start, end) for start, end in spans]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
