"""Cached outputs of a frozen image encoder: `features.npy`, memory-mapped, and `keys.json`.

N vectors of every image lie in (images, N, D). Regions, whose number varies (`capkit.data.region_files`), lie one after
another in (R, D); keys.json then says how many each image has.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from capkit.errors import UsageError
from capkit.utils.files import atomic_folder
from capkit.utils.removal import holds_only
from capkit.utils.store import check_about

FILES = ("features.npy", "keys.json")


class DamagedFeatures(UsageError):
    """A feature folder whose files are damaged."""


class FeatureStore:
    """Read a feature folder. `about` is the provenance (encoder, size ...) that its writer stored."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "keys.json").is_file():
            raise UsageError(f"features: no feature cache in {str(folder)!r}; make it with `capkit prepare` first")
        try:
            content = json.loads((self.folder / "keys.json").read_bytes())
            self.about: dict[str, Any] = dict(content["about"])
            self._rows: dict[str, int] = {key: row for row, key in enumerate(content["keys"])}
        except (ValueError, TypeError, KeyError) as error:
            raise self._damaged("keys.json", "expected JSON with about and keys") from error
        try:
            self._features = np.load(self.folder / "features.npy", mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged("features.npy", str(error)) from error
        counts = content.get("counts")
        self._ends = None if counts is None else np.cumsum(counts)
        self._check_layout()

    def _check_layout(self) -> None:
        layout, ndim = ("(images, N, D)", 3) if self._ends is None else ("(regions, D)", 2)
        if self._features.ndim != ndim or self._features.dtype not in (np.float16, np.float32):
            shape = f"shape {self._features.shape} and type {self._features.dtype}"
            raise self._damaged("features.npy", f"expected {layout} of float16 or float32, got {shape}")
        wanted = len(self._rows) if self._ends is None else int(self._ends[-1])
        if len(self._features) != wanted:
            what = "keys" if self._ends is None else "regions in keys.json"
            raise self._damaged("features.npy", f"it has {len(self._features)} features for {wanted} {what}")

    def _damaged(self, file: str, problem: str) -> DamagedFeatures:
        return DamagedFeatures(
            f"features: {self.folder / file} is damaged: {problem}; make the features again with `capkit prepare`"
        )

    def check(self, **wanted: Any) -> None:
        """Raise UsageError if the features were made with other settings, e.g. `check(weights=...)`.

        Features are stored by image key: recompute them if a picture's content changes.
        """
        found = {name: self.about[name] for name in wanted if name in self.about}
        remedy = "use the encoder they were made with, or make them again with `capkit prepare`"
        check_about(found, wanted, f"features: {str(self.folder)!r}", remedy)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D): tokens of one image, and their width. Of regions, the largest number of an image."""
        if self._ends is None:
            return self._features.shape[1], self._features.shape[2]
        return int(np.diff(self._ends, prepend=0).max()), self._features.shape[1]

    def check_same_regions(self, of: "FeatureStore") -> None:
        """Raise UsageError for an image of which both have features, but not of one number of regions."""
        for key in self._rows:
            if key in of and self.num_regions(key) != of.num_regions(key):
                raise UsageError(
                    f"data.attribute_features: expected features of the regions that {of.folder} has, "
                    f"{of.num_regions(key)} of {key!r}, got {self.num_regions(key)} in {self.folder}; make both of the "
                    "same boxes, with one max_regions"
                )

    def num_regions(self, key: str) -> int:
        """How many vectors an image has."""
        if self._ends is None:
            return self._features.shape[1]
        span = self._span(key)
        return span.stop - span.start

    @property
    def is_ragged(self) -> bool:
        """Whether images have different numbers of vectors."""
        return self._ends is not None

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __getitem__(self, keys: Sequence[str]) -> Float[np.ndarray, "B N D"]:
        """The features of these images in float32. Raises UsageError for regions, which need their mask: `padded`."""
        if self.is_ragged:
            raise UsageError(
                f"features: expected one number of vectors an image, got the regions in {self.folder}, which "
                "captioners read; set data.features to other features, or null"
            )
        return self._features[[self._rows[key] for key in keys]].astype(np.float32)

    def padded(self, keys: Sequence[str]) -> tuple[Float[np.ndarray, "B N D"], Bool[np.ndarray, "B N"] | None]:
        """The features of these images in float32, shorter rows ending in zeros, and a mask that is True before them.

        The mask is None where all images have one number of vectors.
        """
        if self._ends is None:
            return self[keys], None
        parts = [self._features[self._span(key)] for key in keys]
        counts = np.array([len(part) for part in parts])
        mask = np.arange(counts.max()) < counts[:, None]
        values = np.zeros((*mask.shape, self._features.shape[1]), np.float32)
        values[mask] = np.concatenate(parts)
        return values, mask

    def _span(self, key: str) -> slice:
        assert self._ends is not None
        row = self._rows[key]
        return slice(int(self._ends[row - 1]) if row else 0, int(self._ends[row]))


class FeatureWriter:
    """Write a feature folder atomically: the end of the block moves it into place once all keys are written.

    `with FeatureWriter(folder, keys, shape=(N, D)) as writer: writer.write(keys_of_batch, features)`. After an
    exception, or if a key was not written, an existing folder stays unchanged.
    """

    def __init__(
        self,
        folder: str | Path,
        keys: Sequence[str],
        shape: tuple[int, int],
        dtype: str = "float16",
        about: dict[str, Any] | None = None,
        counts: Sequence[int] | None = None,
    ) -> None:
        """`counts`: how many vectors each key has, where numbers differ; the first of `shape` is not used then."""
        if dtype not in ("float16", "float32"):
            raise UsageError(f"dtype of features must be float16 or float32; got {dtype!r}")
        if len(set(keys)) != len(keys) or not keys:
            raise UsageError(f"features need at least one key and no key twice; got {len(keys)} keys")
        self.folder, self._about = Path(folder), about or {}
        self._refuse_foreign()
        self._building = ExitStack()
        self._dtype, self._counts = dtype, counts
        self._shape = (len(keys), *shape) if counts is None else (sum(counts), shape[1])
        self._rows = {key: row for row, key in enumerate(keys)}
        self._missing = set(keys)

    def __enter__(self) -> "FeatureWriter":
        self._partial = self._building.enter_context(atomic_folder(self.folder, is_stale=lambda: True))
        self._features = np.lib.format.open_memmap(
            self._partial / "features.npy", mode="w+", dtype=self._dtype, shape=self._shape
        )
        return self

    def __exit__(self, *raised: Any) -> None:
        """Move the folder into place. Raises UsageError if features of some keys were not written."""
        with self._building:
            if raised[1] is not None:
                raise raised[1]
            self._complete()

    def write(self, keys: Sequence[str], features: Float[np.ndarray, "B N D"] | Float[np.ndarray, "R D"]) -> None:
        """Features of these keys, or with `counts` their vectors one after another."""
        with np.errstate(over="ignore"):
            stored = features.astype(self._features.dtype)
        if not np.isfinite(stored).all():
            raise UsageError(
                f"features of {keys[0]!r} and others are not finite as {stored.dtype}; use dtype='float32'"
            )
        self._features[self._places(keys)] = stored
        self._missing.difference_update(keys)

    def _places(self, keys: Sequence[str]) -> list[int]:
        rows = [self._rows[key] for key in keys]
        if self._counts is None:
            return rows
        ends = np.cumsum(self._counts)
        return [place for row in rows for place in range(ends[row] - self._counts[row], ends[row])]

    def _complete(self) -> None:
        if self._missing:
            raise UsageError(f"features of {len(self._missing)} images are missing, e.g. {min(self._missing)!r}")
        self._features.flush()
        content: dict[str, Any] = {"about": self._about, "keys": list(self._rows)}
        if self._counts is not None:
            content["counts"] = list(self._counts)
        (self._partial / "keys.json").write_text(json.dumps(content), encoding="utf-8")
        self._refuse_foreign()

    def _refuse_foreign(self) -> None:
        if self.folder.exists() and not holds_only(self.folder, FILES):
            raise UsageError(
                f"features: expected a new folder, or one of features to replace; {self.folder} holds other "
                "files; give another folder"
            )
