"""Concadia: Wikipedia's pictures, each with a caption and a description (Kreiss et al. 2022, arXiv 2104.08376)."""

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from capkit.data.files import ImageFiles
from capkit.data.records import Caption, Record
from capkit.data.sources.caption_files import CaptionRow, check_rows
from capkit.data.sources.folder import check_folder_prefix, existing_folder
from capkit.data.sources.listed import ListedPictures
from capkit.errors import UsageError
from capkit.text.caption_text import caption_texts
from capkit.utils.ranges import check_ranges
from capkit.utils.text_files import existing_file, expect, file_name, member, read_json, shown, split_name

TEXTS = ("caption", "description")


@check_ranges
class Concadia(ListedPictures):
    """One split of wiki_split.json.

    A caption says what the picture adds to the article, a description (alt text) what is to be seen in it. A record's
    key is the file's name without ending.

    Args:
        images: Folder of the pictures.
        captions: The file, wiki_split.json.
        split: "train", "val" or "test".
        text: Which text of a picture is its reference: "caption", as DiscriTune takes, or "description".
    """

    def __init__(self, images: str | None, captions: str | None, split: str, text: str = "caption") -> None:
        self._root = existing_folder(images, "images").absolute()
        if captions is None:
            raise UsageError("captions: none given; add captions=FILE, Concadia's wiki_split.json")
        self._path = existing_file(captions, "captions").absolute()
        for name, value, known in (("split", split, ("train", "val", "test")), ("text", text, TEXTS)):
            if value not in known:
                raise UsageError(f"{name}: expected {', '.join(known)}; got {value!r}; set one of them")
        self._split, self._text = split, text
        self.files = ImageFiles(self._root)

    @cached_property
    def _records(self) -> list[Record]:
        rows = _read(self._path, self._text, self._path.stat().st_mtime_ns)
        check_rows(rows, str(self._path))
        records = [row.record for row in rows if row.split == self._split]
        if not records:
            raise UsageError(f"{self._path}: no pictures in split {self._split!r}; choose another split")
        check_folder_prefix(self._root, [str(record.image) for record in records], str(self._path))
        return records


@lru_cache(maxsize=1)
def _read(path: Path, text: str, modified_ns: int) -> list[CaptionRow]:
    """Every picture with its split. Cached, since the sources of train, val and test share one file."""
    content = read_json(path, "captions")
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise UsageError(f"{path}: expected an object with a list 'images', got {shown(content)}; give wiki_split.json")
    return [_row(image, text, f"{path} image {number}") for number, image in enumerate(content["images"])]


def _row(image: Any, text: str, where: str) -> CaptionRow:
    name = file_name(member(expect(image, "an object", where), "filename", "text", where), where)
    raw = member(member(image, text, "an object", where), "raw", "text", where)
    record = Record(
        key=Path(name).with_suffix("").as_posix(),
        image=name,
        captions=[Caption(found) for found in caption_texts({"raw": raw}, where)],
        metadata={"article_id": image.get("article_id")},
    )
    return CaptionRow(record, split_name(member(image, "split", "text", where), where))
