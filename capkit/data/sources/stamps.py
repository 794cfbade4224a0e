"""Tux Paint stamps: real pictures with human captions, fetched by `capkit prepare data=stamps` (docs/stamps.md).

Each picture X.png comes with X.txt: its first line is English, each later one `language.utf8=caption`.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import UInt8

from capkit.data.files import ImageFiles
from capkit.data.records import Caption, Record
from capkit.errors import UsageError, check_choice
from capkit.utils.ranges import Range, Seed, check_ranges
from capkit.utils.rng import stable_hash, uniform

SPLITS = ("all", "train", "val", "test")
_LANGUAGE = re.compile(r"([a-z]{2,3}(?:_[A-Z]{2})?(?:@[a-z]+)?)\.utf8=(.*)")
_MODIFIERS = {"@latin": "-Latn", "@valencia": "-valencia"}


def normalized_caption(text: str) -> str:
    """Normal form of a caption for splitting: lower-case words without a leading article."""
    words = re.findall(r"\w+", text.casefold())
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the", "some") else words)


def split_of(caption: str, val: float, test: float, seed: int) -> str:
    """ "train", "val" or "test", by a hash of (seed, normalised caption): equal captions share a split, everywhere."""
    place = float(uniform(np.array([stable_hash(seed, "split", normalized_caption(caption))]), 0)[0])
    return "test" if place < test else "val" if place < test + val else "train"


def read_captions(file: Path) -> Iterator[Caption]:
    """Read the captions of a .txt file, the English one first, with BCP 47 tags (pt_BR becomes pt-BR)."""
    lines = file.read_text(encoding="utf-8").splitlines()
    if lines and lines[0].strip():
        yield Caption(lines[0].strip())
    for line in lines[1:]:
        match = _LANGUAGE.fullmatch(line.strip())
        if match and match[2].strip():
            yield Caption(match[2].strip(), language=_bcp47(match[1]))


def _bcp47(code: str) -> str:
    base, at, modifier = code.partition("@")
    return base.replace("_", "-") + (_MODIFIERS.get(at + modifier, f"-x-{modifier}") if at else "")


@check_ranges
class Stamps:
    """The stamps as a data source, split by caption and not by file, since many pictures share a caption.

    Pictures that exist only as SVG are not used. Transparency becomes white on loading; the transform's `resize: pad`
    makes pictures square.

    Args:
        root: Folder of the stamps.
        split: "all", "train", "val" or "test".
        val: Share of the captions.
        test: Share of the captions.
        exclude: Folders to leave out: "symbols" holds letters, digits, signs and coins, whose captions do not describe
            what is seen.
        languages: BCP 47 tags of the captions to keep, null for all; pictures without one are left out.
    """

    def __init__(
        self,
        root: str,
        split: str = "all",
        val: Annotated[float | int, Range(0, below=1)] = 0.1,
        test: Annotated[float | int, Range(0, below=1)] = 0.2,
        seed: Seed = 0,
        exclude: Sequence[str] = ("symbols",),
        languages: Sequence[str] | None = ("en",),
    ) -> None:
        if not Path(root).is_dir():
            raise UsageError(f"root: no folder {root!r}; fetch the stamps with `capkit prepare data=stamps`")
        check_choice("split", split, SPLITS)
        if val + test >= 1:
            raise UsageError(f"val and test are shares of the captions, together below 1; got {val} and {test}")
        missing = [folder for folder in exclude if not (Path(root) / folder).is_dir()]
        if missing:
            raise UsageError(
                f"exclude: {missing} are no folders in {root!r}; name folders such as symbols or town/flags"
            )
        self._root = Path(root).absolute()
        self._split, self._val, self._test, self._seed = split, val, test, seed
        self._exclude = {Path(folder) for folder in exclude}
        self._languages = None if languages is None else frozenset(languages)
        self.files = ImageFiles(self._root)

    @cached_property
    def _records(self) -> list[Record]:
        records = [record for file in sorted(self._root.rglob("*.txt")) if (record := self._read(file)) is not None]
        if not records:
            spoken = {caption.language for file in self._root.rglob("*.txt") for caption in read_captions(file)}
            raise UsageError(
                f"no stamps for split={self._split} in {str(self._root)!r}; check exclude, and data.languages: "
                f"captions are in {', '.join(sorted(spoken)) or 'no language'}"
            )
        return records

    def _read(self, file: Path) -> Record | None:
        relative = file.relative_to(self._root)
        if self._exclude.intersection(relative.parents) or not file.with_suffix(".png").is_file():
            return None
        captions = list(read_captions(file))
        kept = [c for c in captions if self._languages is None or c.language in self._languages]
        if not kept:
            return None
        if self._split not in ("all", split_of(captions[0].text, self._val, self._test, self._seed)):
            return None
        name = relative.with_suffix("").as_posix()
        return Record(name, f"{name}.png", kept, metadata={"category": relative.parts[0]})

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> Record:
        return self._records[index]

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        return self.files.load(self.record(index).image)
