"""nocaps: pictures of Open Images with ten captions, in, near and out of COCO's domain (Agrawal et al., ICCV 2019)."""

from functools import cached_property
from typing import Any

from capkit.data.files import ImageFiles
from capkit.data.records import Record
from capkit.data.sources.caption_files import check_rows, rows_of_coco
from capkit.data.sources.folder import check_folder_prefix, existing_folder
from capkit.data.sources.listed import ListedPictures
from capkit.errors import UsageError
from capkit.utils.ranges import check_ranges
from capkit.utils.text_files import existing_file, expect, member, read_json, shown

DOMAINS = ("in-domain", "near-domain", "out-domain")


@check_ranges
class Nocaps(ListedPictures):
    """The pictures of nocaps_val_4500_captions.json, of one domain or of all.

    The file is COCO's captions_*.json, in which each picture names its `domain`. A record's key is the picture's id;
    its metadata hold `image_id` and `domain`. The test set's captions are not public.

    Args:
        images: Folder of the pictures, Open Images' validation set.
        captions: The file.
        domain: "in-domain", "near-domain" or "out-domain"; null: all.
    """

    def __init__(self, images: str | None, captions: str | None, domain: str | None = None) -> None:
        self._root = existing_folder(images, "images").absolute()
        if captions is None:
            raise UsageError("captions: none given; add captions=FILE, nocaps_val_4500_captions.json")
        self._path = existing_file(captions, "captions").absolute()
        if domain not in (None, *DOMAINS):
            raise UsageError(f"domain: expected {', '.join(DOMAINS)} or null, got {domain!r}; set one of them")
        self._domain = domain
        self.files = ImageFiles(self._root)

    @cached_property
    def _records(self) -> list[Record]:
        content = read_json(self._path, "captions")
        if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
            raise UsageError(
                f"{self._path}: expected an object with images and annotations, got {shown(content)}; give "
                "nocaps_val_4500_captions.json (the image info file has no captions)"
            )
        rows = rows_of_coco(content, self._path)
        for number, (row, image) in enumerate(zip(rows, content["images"], strict=True)):
            row.record.metadata["domain"] = _domain(image, f"{self._path} images, item {number}")
        check_rows(rows, str(self._path))
        check_folder_prefix(self._root, [str(row.record.image) for row in rows], str(self._path))
        records = [row.record for row in rows if self._domain in (None, row.record.metadata["domain"])]
        if not records:
            raise UsageError(f"{self._path}: no pictures of domain {self._domain!r}; set domain=null for all")
        return records


def _domain(image: Any, where: str) -> str:
    name: str = member(expect(image, "an object", where), "domain", "text", where)
    if name not in DOMAINS:
        raise UsageError(f"{where}: expected a domain of {', '.join(DOMAINS)}, got {shown(name)}; check the file")
    return name
