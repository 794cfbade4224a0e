"""FuseCap's released captions (Rotstein et al. 2024, arXiv 2305.17718): JSON lists of pictures or addresses."""

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from capkit.data.files import ImageFiles
from capkit.data.records import Caption, Record
from capkit.data.sources.caption_files import CaptionRow, check_rows
from capkit.data.sources.conceptual_captions import rows_on_disk
from capkit.data.sources.folder import existing_folder
from capkit.data.sources.listed import ListedPictures
from capkit.data.splits import check_shares, rows_of_split
from capkit.errors import UsageError
from capkit.utils.ranges import Probability, Seed, check_ranges
from capkit.utils.text_files import existing_file, expect, file_name, member, read_json

SOURCE = "fusecap"


@check_ranges
class FuseCapCaptions(ListedPictures):
    """Fused captions, source "fusecap", of the pictures in a folder.

    A row of the list is {"image": ..., "caption": ...}, whose picture is a file of `images` (COCO's, by its name), or
    {"url": ..., "caption": ...} (SBU, Conceptual Captions), whose picture is called by the CRC-32 of the address, as
    `data=conceptual_captions` has them. Rows of one picture are captions of it. A record's key is the file's name, or
    the CRC-32. Addresses without a picture are left out, at most a share of `max_missing`.

    Args:
        images: Folder of the pictures.
        captions: The list.
        split: train, val or test.
        val, test: Shares of the pictures that are val and test, chosen by a hash of (seed, key).
        seed: Of that draw.
        max_missing: Share of the addresses that may be left out.
    """

    def __init__(
        self,
        images: str | None,
        captions: str | None,
        split: str = "train",
        val: Probability = 0.01,
        test: Probability = 0.01,
        seed: Seed = 0,
        max_missing: Probability = 0.5,
    ) -> None:
        self._root = existing_folder(images, "images").absolute()
        if captions is None:
            raise UsageError("captions: none given; add captions=FILE, a list of FuseCap's")
        self._path = existing_file(captions, "captions").absolute()
        if split not in ("train", "val", "test"):
            raise UsageError(f"split must be train, val or test; got {split!r}")
        check_shares(float(val), float(test))
        self._split, self._shares, self._seed = split, (float(val), float(test)), seed
        self._max_missing = float(max_missing)
        self.files = ImageFiles(self._root)

    @cached_property
    def _records(self) -> list[Record]:
        rows = _read(self._path, self._root, self._path.stat().st_mtime_ns, self._max_missing)
        chosen = rows_of_split(rows, self._split, *self._shares, self._seed, str(self._path))
        if not chosen:
            raise UsageError(
                f"{self._path}: no pictures in split {self._split!r}; set {self._split}=0.01, its share of the pictures"
            )
        return [row.record for row in chosen]


@lru_cache(maxsize=2)
def _read(path: Path, root: Path, modified_ns: int, max_missing: float) -> list[CaptionRow]:
    """The rows of the pictures, in the order of the list. Cached, since the splits share a list."""
    files: dict[str, list[str]] = {}
    urls: dict[str, list[str]] = {}
    for number, item in enumerate(expect(read_json(path, "captions"), "a list", str(path))):
        where = f"{path} item {number}"
        row: dict[str, Any] = expect(item, "an object", where)
        caption = member(row, "caption", "text", where)
        if ("image" in row) == ("url" in row):
            raise UsageError(
                f"{where}: expected 'image' or 'url' beside 'caption', got {'both' if 'url' in row else 'none'}"
            )
        if "image" in row:
            files.setdefault(file_name(row["image"], where, "image"), []).append(caption)
        else:
            urls.setdefault(member(row, "url", "text", where), []).append(caption)
    if not files and not urls:
        raise UsageError(f"{path}: no captions in it; give a list of {{image, caption}} or {{url, caption}}")
    rows = [CaptionRow(Record(name, name, [Caption(text, SOURCE) for text in files[name]])) for name in files]
    rows += rows_on_disk(urls, path, root, max_missing, SOURCE) if urls else []
    check_rows(rows, str(path))
    return rows
