"""Captions with the picture that was generated from each, in the files of SynC (Kim et al. 2025, arXiv 2507.18616)."""

import warnings
from functools import cached_property

from capkit.data.files import ImageFiles
from capkit.data.records import Caption, Record, check_unique_keys
from capkit.data.sources.folder import existing_folder
from capkit.data.sources.listed import ListedPictures
from capkit.errors import UsageError
from capkit.text.caption_text import caption_texts
from capkit.utils.text_files import existing_file, expect, file_name, read_json, shown

IMAGES, CAPTIONS = "meta_images.json", "meta_gt_captions.json"


class SyntheticPairs(ListedPictures):
    """One record a picture, with the caption that it was generated from, in the order of meta_images.json.

    `root` holds meta_images.json, a list of file names; meta_gt_captions.json, an object of file names and captions;
    and the pictures, in `images` (null: root/images). A record's key is its file name. Captions of pictures that are
    not listed are left out, with a warning.
    """

    def __init__(self, root: str | None, images: str | None = None) -> None:
        self._root = existing_folder(root, "root").absolute()
        for name in (IMAGES, CAPTIONS):
            existing_file(self._root / name, name)
        self.files = ImageFiles(existing_folder(images or str(self._root / "images"), "images").absolute())

    @cached_property
    def _records(self) -> list[Record]:
        listed, written = self._root / IMAGES, self._root / CAPTIONS
        items = expect(read_json(listed, IMAGES), "a list", str(listed))
        names = [file_name(item, f"{listed} item {number}", "image") for number, item in enumerate(items)]
        captions = expect(read_json(written, CAPTIONS), "an object", str(written))
        if not names:
            raise UsageError(f"{listed}: no pictures in it; list their file names")
        if missing := [name for name in names if name not in captions]:
            raise UsageError(
                f"{written}: expected a caption of each of the {len(names)} pictures in {IMAGES}, {len(missing)} have "
                f"none, e.g. {shown(missing[0])}; add theirs, or take them off the list"
            )
        texts = {name: caption_texts(captions[name], f"{written} entry {shown(name)}") for name in names}
        records = [Record(name, name, [Caption(text) for text in texts[name]]) for name in names]
        check_unique_keys(records, str(listed))
        if rest := len(captions) - len(names):
            warnings.warn(
                f"{written}: {rest} captions of pictures that {IMAGES} does not list are unused", stacklevel=2
            )
        return records
