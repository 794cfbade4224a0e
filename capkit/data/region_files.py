"""Region features made elsewhere (bottom-up attention, Anderson et al. 2018): a file an image to one folder.

`KEY.npz` holds `feat` (n, D) and may hold `bbox` (n, 4); `KEY.npy` holds `feat` alone. n varies from image to image,
and `KEY` is a record's key. R regions of all images, D width.

The folder that a `FeatureStore` reads: `features.npy` (R, D) in float16, `boxes.npy` (R, 4) in float32, as the files
have them, if all do, and `keys.json`. It is made in NAME.building beside it, to which any number of processes write
their shares; what is written stays when one is killed.
"""

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from jaxtyping import Float

from capkit.data.features import FeatureStore
from capkit.errors import UsageError
from capkit.utils.files import write_atomically
from capkit.utils.store import KEY_BYTES, digest

BOXES = "boxes.npy"
_PLAN, _WRITTEN = "plan.json", "written.npy"  # of the folder while it is made; of each image the hash of its regions


class RegionWriting:
    """Writes the first `max_regions` regions of each of `keys` from files in `folder` to `out`, in shares.

    Raises UsageError, before anything is written, for a key without a file, for files whose vectors differ in width,
    and for one without a region; and for numbers that are not finite as float16 when they are read.
    """

    def __init__(self, folder: Path, out: Path, keys: Sequence[str], max_regions: int) -> None:
        if not folder.is_dir():
            raise UsageError(f"features: expected a folder of region features, KEY.npz or KEY.npy, got {str(folder)!r}")
        self._out, self._building = out, out.parent / f"{out.name}.building"
        self._files = _files_of(folder, keys)
        self._max_regions = max_regions
        self._about = {"regions": str(folder.resolve()), "max_regions": max_regions}
        self._keys = list(keys)
        self._plan: dict[str, Any] = {}

    def is_complete(self) -> bool:
        """Whether `out` has the regions of these keys already. Raises UsageError if it holds something else."""
        if not self._out.exists():
            return False
        store = FeatureStore(self._out)
        store.check(**self._about)
        if missing := [key for key in self._keys if key not in store]:
            raise UsageError(
                f"features: {self._out} has no regions of {len(missing)} images, e.g. {missing[0]!r}; delete it, or "
                "give another data.features"
            )
        return True

    def rows_of(self, shard: int, num_shards: int) -> range:
        """The images of a share."""
        return range(shard, len(self._keys), num_shards)

    def write(self, rows: Sequence[int]) -> Iterator[int]:
        """Write these images' regions, but for those that are written; yields each image's row."""
        plan = self._planned()
        ends = np.cumsum(plan["counts"])
        features = self._array("features.npy", np.float16, (int(ends[-1]), plan["width"]))
        boxes = self._array(BOXES, np.float32, (int(ends[-1]), 4)) if plan["has_boxes"] else None
        written = self._array(_WRITTEN, np.uint8, (len(self._keys), KEY_BYTES))
        for row in rows:
            if not written[row].any():
                span = _span(ends, row)
                features[span] = values = self._values(row, plan["counts"][row])
                if boxes is not None:
                    boxes[span] = _load(self._files[row], "bbox")[: len(values)]
                written[row] = self._hash(row, values, None if boxes is None else boxes[span])
            yield row

    def complete(self) -> int:
        """Move the folder into place if all images are written; how many are not.

        What lies on the disk is read once more: after a power failure marks may be there without their regions.
        """
        try:
            plan, written = self._planned(), self._array(_WRITTEN, np.uint8, (len(self._keys), KEY_BYTES))
            if missing := int((~written.any(1)).sum()):
                return missing
            ends, features = np.cumsum(plan["counts"]), np.load(self._building / "features.npy", mmap_mode="r")
            boxes = np.load(self._building / BOXES, mmap_mode="r") if plan["has_boxes"] else None
            for row in range(len(self._keys)):
                span = _span(ends, row)
                found = self._hash(row, features[span], None if boxes is None else boxes[span])
                if found.tobytes() != written[row].tobytes():
                    written[row] = 0
            if missing := int((~written.any(1)).sum()):
                return missing
            about = {**self._about, "hash": digest(written.tobytes()).hex()}
            content = {"about": about, "keys": self._keys, "counts": plan["counts"]}
            write_atomically(self._building / "keys.json", json.dumps(content))
            self._building.rename(self._out)
        except FileNotFoundError:
            if not self._out.exists():
                raise
            return 0  # another process was as late, and faster
        for name in (_PLAN, _WRITTEN):
            (self._out / name).unlink()
        return 0

    def _hash(self, row: int, values: np.ndarray, boxes: np.ndarray | None) -> np.ndarray:
        parts = [self._keys[row].encode(), values.tobytes(), b"" if boxes is None else boxes.tobytes()]
        return np.frombuffer(digest(*parts), np.uint8)

    def _values(self, row: int, count: int) -> Float[np.ndarray, "n D"]:
        with np.errstate(over="ignore"):
            values = _load(self._files[row], "feat")[:count].astype(np.float16)
        if not np.isfinite(values).all():
            raise UsageError(
                f"{self._files[row]}: expected finite numbers, below 65,504, got others; make the file again"
            )
        return values

    def _planned(self) -> dict[str, Any]:
        """How many regions each image gets, from the files' headers; looked up once, by whoever comes first."""
        if not self._plan:
            file = self._building / _PLAN
            if not file.is_file():
                self._building.mkdir(parents=True, exist_ok=True)
                write_atomically(file, json.dumps(self._new_plan()))
            self._plan = json.loads(file.read_text(encoding="utf-8"))
            if self._plan["about"] != self._about or self._plan["keys"] != self._keys:
                raise UsageError(
                    f"features: {self._building} was begun with other files, images or max_regions; delete it, or give "
                    "what it was begun with"
                )
        return self._plan

    def _new_plan(self) -> dict[str, Any]:
        shapes = [cast(tuple[int, ...], _shape(file, "feat")) for file in self._files]
        width = shapes[0][1]
        for file, shape in zip(self._files, shapes, strict=True):
            if shape[1] != width:
                raise UsageError(
                    f"{file}: expected vectors of width {width}, as in {self._files[0].name}, got {shape[1]}; give "
                    "files of one detector"
                )
            if not shape[0]:
                raise UsageError(
                    f"{file}: expected at least one region, got none; leave the image out, or mend the file"
                )
        boxes = [_shape(file, "bbox") if file.suffix == ".npz" else None for file in self._files]
        for file, shape, box in zip(self._files, shapes, boxes, strict=True):
            if box is not None and box != (shape[0], 4):
                raise UsageError(f"{file}: expected bbox of shape {(shape[0], 4)}, got {box}; make the file again")
        counts = [min(shape[0], self._max_regions) for shape in shapes]
        has_boxes = all(box is not None for box in boxes)
        return {"about": self._about, "keys": self._keys, "counts": counts, "width": width, "has_boxes": has_boxes}

    def _array(self, name: str, dtype: type, shape: tuple[int, ...]) -> np.memmap:
        """A file of the folder, zeros at first; whoever comes first makes it, with its place on the disk."""
        path = self._building / name
        if not path.exists():
            new = path.with_name(f".{name}.{os.getpid()}")
            np.lib.format.open_memmap(new, mode="w+", dtype=dtype, shape=shape)
            with new.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, new.stat().st_size)  # a full disk is told now, not by a SIGBUS
            with contextlib.suppress(FileExistsError):
                os.link(new, path)
            new.unlink()
        return np.lib.format.open_memmap(path, mode="r+")


def _span(ends: np.ndarray, row: int) -> slice:
    return slice(int(ends[row - 1]) if row else 0, int(ends[row]))


def _files_of(folder: Path, keys: Sequence[str]) -> list[Path]:
    """The file of each key; the .npz where there are both."""
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*.np[yz]")}
    found = {key: next((f"{key}{end}" for end in (".npz", ".npy") if f"{key}{end}" in there), None) for key in keys}
    if missing := [key for key, name in found.items() if name is None]:
        raise UsageError(
            f"features: expected KEY.npz or KEY.npy of each of {len(keys)} images in {folder}, got none of "
            f"{len(missing)}: {', '.join(missing[:3])}; add them, or leave these images out of the data"
        )
    return [folder / str(name) for name in found.values()]


def _shape(file: Path, name: str) -> tuple[int, ...] | None:
    """Of an array in a file, from its header alone; None where a .npz has no such array."""
    try:
        if file.suffix == ".npy":
            with file.open("rb") as stream:
                return _header_shape(stream, file)
        with zipfile.ZipFile(file) as members:
            if f"{name}.npy" not in members.namelist():
                if name == "bbox":
                    return None
                held = ", ".join(Path(member).stem for member in members.namelist())
                raise UsageError(f"{file}: expected an array {name!r}, got {held}; save it under this name")
            with members.open(f"{name}.npy") as stream:
                return _header_shape(stream, file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UsageError(f"{file}: expected an array of numpy, got a file that cannot be read: {error}") from error


def _header_shape(stream: IO[bytes] | BufferedIOBase, file: Path) -> tuple[int, ...]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if len(shape) != 2 or dtype.kind not in "fiu":
        raise UsageError(f"{file}: expected numbers of shape (regions, width), got {dtype} of shape {shape}")
    return shape


def _load(file: Path, name: str) -> np.ndarray:
    try:
        content = np.load(file, allow_pickle=False)
        return content if file.suffix == ".npy" else content[name]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UsageError(f"{file}: expected an array of numpy, got a file that cannot be read: {error}") from error
