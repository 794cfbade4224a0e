"""Bags on disk: a folder with a list per neighbourhood and size, described by `bags.json`.

    hard-3.json, easy-5.json ...   JSON lists of lists of image keys: the form of TrueMatch's benchmark files
    bags.json                      split, hash of its keys, and for each list its hash and quality

A list is named by neighbourhood and size. No image is in two bags of one list.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from capkit.errors import UsageError, did_you_mean
from capkit.utils.files import write_atomically, write_json
from capkit.utils.text_files import expect, member, read_json

ABOUT = "bags.json"
NEIGHBORHOODS = ("random", "easy", "medium", "hard")
Bags = list[list[str]]


def hash_of_keys(keys: Sequence[str]) -> str:
    """Hash of a split's keys, independent of their order, as 32 hexadecimal digits."""
    return hashlib.sha256("\n".join(sorted(json.dumps(key) for key in keys)).encode()).hexdigest()[:32]


def hash_of_bags(bags: Bags) -> str:
    """Hash of a list of bags, including its order, as 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(bags).encode()).hexdigest()[:32]


def list_name(neighborhood: str, size: int) -> str:
    return f"{neighborhood}-{size}"


def size_of(name: str) -> int:
    """The bag size in a list's name. Raises UsageError for an invalid name."""
    neighborhood, _, size = name.rpartition("-")
    if neighborhood not in NEIGHBORHOODS or not size.isdecimal() or int(size) < 2:
        raise UsageError(
            f"a list of bags is named NEIGHBORHOOD-SIZE, e.g. hard-3, with one of {', '.join(NEIGHBORHOODS)} and a "
            f"size of 2 or more; got {name!r}"
        )
    return int(size)


def write_bags(folder: Path, lists: Mapping[str, Bags], about: Mapping[str, Any]) -> None:
    """Write the lists, then bags.json with their hashes; if that file exists, the lists are complete."""
    for name, bags in lists.items():
        write_atomically(folder / f"{name}.json", json.dumps(bags, ensure_ascii=False))
    entries = {name: {"hash": hash_of_bags(bags), **about["lists"][name]} for name, bags in lists.items()}
    write_json(folder / ABOUT, {**about, "lists": entries}, ensure_ascii=False)


class BagFolder:
    """Read a folder of bags; `path` may also be the run folder that contains it as `bags`.

    Raises UsageError if there is none, a list is missing, or a list was changed since it was written.
    """

    def __init__(self, path: str | Path) -> None:
        candidates = [Path(path), Path(path) / "bags"]
        found = [folder for folder in candidates if (folder / ABOUT).is_file()]
        if not found:
            raise UsageError(f"no {ABOUT} in {path}; give the folder that `capkit bags` wrote")
        self.path = found[0]
        where = str(self.path / ABOUT)
        self.about: dict[str, Any] = expect(read_json(self.path / ABOUT, "bags"), "an object", where)
        for name, kind in (("split", "text"), ("keys_hash", "text"), ("lists", "an object")):
            member(self.about, name, kind, where)

    def check_split(self, split: str, keys: Sequence[str]) -> None:
        """Raise UsageError if the bags are of another split or of other images."""
        if self.about["split"] != split:
            raise UsageError(
                f"expected bags of the {split} split, got bags of the {self.about['split']} split in {self.path}; "
                f"mine and group that split: `capkit mine split={split}`, `capkit bags`"
            )
        if self.about["keys_hash"] != hash_of_keys(keys):
            raise UsageError(
                f"{self.path} holds bags of other images than those of data.{split} (their keys differ: "
                f"{self.about['num_keys']} then, {len(keys)} now); mine and group the images of this config"
            )

    def bags(self, name: str) -> Bags:
        if name not in self.about["lists"]:
            there = list(self.about["lists"])
            raise UsageError(
                f"{self.path} has no list {name!r}; {did_you_mean(name, there)}; make it with `capkit bags`"
            )
        bags = read_json(self.path / f"{name}.json", "bags")
        if hash_of_bags(bags) != self.hash(name):
            raise UsageError(f"{self.path / name}.json was changed after it was written; make the bags again")
        return bags

    def hash(self, name: str) -> str:
        return self.about["lists"][name]["hash"]
