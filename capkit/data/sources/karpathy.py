"""Karpathy's split files `dataset_coco.json`, `dataset_flickr8k.json` and `dataset_flickr30k.json`.

Karpathy & Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions" (CVPR 2015).
"""

import warnings
from collections import Counter
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from capkit.data.files import ImageFiles
from capkit.data.records import Caption, Record
from capkit.data.sources.caption_files import CaptionRow, check_rows
from capkit.data.sources.folder import existing_folder
from capkit.data.sources.listed import ListedPictures
from capkit.data.splits import check_shares, rows_of_split
from capkit.errors import UsageError
from capkit.text.caption_text import caption_texts
from capkit.utils.ranges import Range, Seed, check_ranges
from capkit.utils.text_files import SPLIT_OF, existing_file, expect, file_name, member, read_json, shown

_SPLITS = ("train", "val", "test", "restval")


@lru_cache(maxsize=1)
def _read(path: Path, modified_ns: int) -> list[CaptionRow]:
    """Read every image with its split. Cached, since the sources of train, val and test share one file."""
    content = read_json(path, "captions")
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise UsageError(
            f"{path}: not a Karpathy split file, which is an object with a list 'images'; got {shown(content)}"
        )
    rows = [_row(image, f"{path} image {number}") for number, image in enumerate(content["images"])]
    unknown = Counter(row.split for row in rows if row.split not in _SPLITS)
    if unknown:
        told = ", ".join(f"{count} in {split!r}" for split, count in unknown.items())
        warnings.warn(
            f"{path}: {unknown.total()} of {len(rows)} images are used in no split: {told}; the splits are "
            f"{', '.join(_SPLITS)}",
            stacklevel=2,
        )
    return rows


def _row(image: Any, where: str) -> CaptionRow:
    """`filepath` is the folder of COCO's pictures (train2014, val2014); Flickr's files have none."""
    name = file_name(member(expect(image, "an object", where), "filename", "text", where), where)
    cocoid, folder = image.get("cocoid"), image.get("filepath")
    if cocoid is not None:
        expect(cocoid, "text or a whole number", where, "cocoid")
    path = f"{file_name(folder, where, 'filepath')}/{name}" if folder not in (None, "") else name
    split = member(image, "split", "text", where).strip().lower()
    captions = caption_texts(member(image, "sentences", "a list", where), f"{where} ({path})")
    record = Record(
        key=str(cocoid) if cocoid is not None else PurePosixPath(path).with_suffix("").as_posix(),
        image=path,
        captions=[Caption(text) for text in captions],
        metadata={"image_id": cocoid if cocoid is not None else image.get("imgid"), "filename": name},
    )
    return CaptionRow(record, SPLIT_OF.get(split, split))


@check_ranges
class Karpathy(ListedPictures):
    """One split of a Karpathy file.

    A record's key is the image's `cocoid`, or else its path without extension.

    Args:
        images: Folder of the images: in `filepath` subfolders, or all in one folder.
        captions: The file, e.g. dataset_coco.json.
        split: "train", "val" or "test".
        restval: Add COCO's "restval" (30,504 pictures of the validation set in neither val nor test) to train.
        val: If the file has no val images, the share of train to use, chosen by a hash of (seed, key).
        test: Likewise for test.
    """

    def __init__(
        self,
        images: str | None,
        captions: str | None,
        split: str,
        restval: bool = True,
        val: Annotated[float | int, Range(0, below=1)] = 0.05,
        test: Annotated[float | int, Range(0, below=1)] = 0.05,
        seed: Seed = 0,
    ) -> None:
        self._root = existing_folder(images, "images").absolute()
        if captions is None:
            raise UsageError("captions: none given; add captions=FILE, a Karpathy file such as dataset_coco.json")
        self._path = existing_file(captions, "captions").absolute()
        if split not in ("train", "val", "test"):
            raise UsageError(f"split must be train, val or test; got {split!r}")
        check_shares(val, test)
        self._split, self._val, self._test, self._seed = split, val, test, seed
        self._restval = restval
        self.files = ImageFiles(self._root)

    @cached_property
    def _records(self) -> list[Record]:
        rows = _read(self._path, self._path.stat().st_mtime_ns)
        if self._restval:  # after the pictures of train
            rest = [CaptionRow(row.record, "train") for row in rows if row.split == "restval"]
            rows = [row for row in rows if row.split != "restval"] + rest
        rows = self._where_the_images_are(rows)
        check_rows(rows, str(self._path))
        chosen = rows_of_split(rows, self._split, self._val, self._test, self._seed, str(self._path))
        if not chosen:
            splits = dict.fromkeys(str(row.split) for row in rows)
            raise UsageError(f"{self._path}: no images in split {self._split!r}; it has {', '.join(splits) or 'none'}")
        return [row.record for row in chosen]

    def _where_the_images_are(self, rows: list[CaptionRow]) -> list[CaptionRow]:
        folders = {str(Path(str(row.record.image)).parent) for row in rows}
        if any((self._root / folder).is_dir() for folder in folders):
            return rows
        flat = [CaptionRow(replace(r.record, image=r.record.metadata["filename"]), r.split) for r in rows]
        if len({row.record.image for row in flat}) < len({row.record.image for row in rows}):
            raise UsageError(
                f"{self._path}: pictures of one name are in several folders ({', '.join(sorted(folders)[:3])}), and "
                f"{str(self._root)!r} has none of these; put the pictures into them"
            )
        return flat
