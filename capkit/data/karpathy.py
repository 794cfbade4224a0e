"""Karpathy's split files `dataset_coco.json`, `dataset_flickr8k.json` and `dataset_flickr30k.json`.

Karpathy & Fei-Fei, "Deep Visual-Semantic Alignments for Generating Image Descriptions" (CVPR 2015).
"""

import json
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from capkit.data.files import ImageFiles
from capkit.data.folder import existing_folder
from capkit.data.manifest import Caption, Record
from capkit.errors import UsageError
from capkit.text_files import existing_file


@lru_cache(maxsize=1)
def _read(path: Path, modified_ns: int) -> dict[str, list[Record]]:
    """Records by the split that the file names. Kept for the next source: train, val and test share one file."""
    try:
        images = json.loads(path.read_text(encoding="utf-8"))["images"]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a Karpathy split file, which is JSON with a list 'images' ({error})") from error
    splits: dict[str, list[Record]] = {}
    for number, image in enumerate(images):
        try:
            splits.setdefault(image["split"], []).append(_record(image))
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: image {number} has no usable {error}") from error
    return splits


def _record(image: dict[str, Any]) -> Record:
    """`filepath` is the folder of COCO's pictures (train2014, val2014); Flickr's files have none."""
    filename, cocoid = image["filename"], image.get("cocoid")
    return Record(
        key=str(cocoid) if cocoid is not None else Path(filename).stem,
        image=f"{image['filepath']}/{filename}" if image.get("filepath") else filename,
        captions=[Caption(sentence["raw"]) for sentence in image["sentences"]],
        metadata={"image_id": cocoid if cocoid is not None else image.get("imgid"), "filename": filename},
    )


class Karpathy:
    """One split of a Karpathy file, with its images below `images`: in `filepath` subfolders, or all in one folder.

    COCO's "restval" (30,504 pictures of the validation set that are in neither val nor test) joins train unless
    `restval` is false.
    """

    def __init__(
        self,
        images: str | None,
        captions: str | None,
        split: str,
        restval: bool = True,
    ) -> None:
        self._root = existing_folder(images, "images").absolute()
        if captions is None:
            raise UsageError("captions: none given; add captions=FILE, a Karpathy file such as dataset_coco.json")
        self._path = existing_file(captions, "captions").absolute()
        if split not in ("train", "val", "test"):
            raise UsageError(f"split must be train, val or test; got {split!r}")
        self._splits = (split, "restval") if split == "train" and restval else (split,)
        self.files = ImageFiles(self._root)

    @cached_property
    def _records(self) -> list[Record]:
        splits = _read(self._path, self._path.stat().st_mtime_ns)
        records = [record for split in self._splits for record in splits.get(split, [])]
        if not records:
            raise UsageError(
                f"{self._path}: no images in split {self._splits[0]!r}; it has {', '.join(splits) or 'none'}"
            )
        folders = {str(Path(str(record.image)).parent) for record in records}
        if any((self._root / folder).is_dir() for folder in folders):
            return records
        return [replace(record, image=record.metadata["filename"]) for record in records]

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> Record:
        return self._records[index]

    def image(self, index: int) -> np.ndarray:
        return self.files.load(self._records[index].image)
