"""Assign images to train, val and test: by the captions file, or else by a hash of each key."""

import math
import warnings
from collections.abc import Sequence

import numpy as np

from capkit.data.sources.caption_files import CaptionRow
from capkit.errors import UsageError
from capkit.utils.rng import stable_hash, uniform


def check_shares(val: float | int, test: float | int) -> None:
    if val + test >= 1:
        raise UsageError(f"val and test are shares of the images, together below 1; got {val} and {test}")


def rows_of_split(
    rows: Sequence[CaptionRow], split: str, val: float | int, test: float | int, seed: int, where: str
) -> list[CaptionRow]:
    """The rows of train, val or test, in order.

    If rows name the split, these rows. If no row names val or test, it is a share of train's rows (of all rows if none
    names any split), rounded up and chosen by a hash of (seed, key), the same on every machine. Taking a share from a
    named train split is reported by a warning.
    """
    named = {row.split for row in rows if row.split is not None}
    pool = [row for row in rows if row.split == "train"] if named else list(rows)
    kept = {name: share for name, share in (("test", test), ("val", val)) if name not in named and share > 0}
    if split in named and not (split == "train" and kept):
        return [row for row in rows if row.split == split]
    order = np.argsort(
        uniform(np.array([stable_hash(seed, "split", row.record.key) for row in pool]), 0), kind="stable"
    )
    parts, start = {"test": order[:0], "val": order[:0]}, 0
    for name, share in kept.items():
        count = math.ceil(share * len(pool))
        parts[name], start = order[start:][:count], start + count
        if named and count:
            warnings.warn(
                f"{where}: no image is in split {name!r}; {count} of the {len(pool)} train images are kept for it "
                f"(data.train.{name}={share}; 0 keeps none)",
                stacklevel=2,
            )
    parts["train"] = order[start:]
    if split == "train" and len(pool) and not len(parts["train"]):
        raise UsageError(
            f"{where}: {len(pool)} images are too few for a share of val ({val}) and of test ({test}) beside train; "
            "give more, or name each image's split"
        )
    return [pool[index] for index in sorted(parts[split])]
