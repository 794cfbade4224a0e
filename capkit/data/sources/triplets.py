"""Triplets of a picture, a box and a caption, one a line: the form of mined regions (FlexCap, arXiv 2403.12026)."""

from functools import cached_property

from capkit.data.files import ImageFiles
from capkit.data.records import Record, Region
from capkit.data.sources.folder import check_folder_prefix, existing_folder
from capkit.data.sources.listed import ListedPictures
from capkit.errors import UsageError
from capkit.utils.ranges import check_ranges
from capkit.utils.text_files import decode, existing_file, expect, file_name, member, parse_json, shown


@check_ranges
class Triplets(ListedPictures):
    """A record for each picture of a JSONL of {"image", "box": [x0, y0, x1, y1] in [0, 1], "caption"}.

    Its regions are all the picture's lines, wherever they stand, in order; pictures are in the order of their first
    line. A box without area and an empty caption keep their places among the regions: runs list them as skipped. Other
    members of a line, such as `n_words`, are not read. A record's key is its `image`.

    Args:
        images: Folder that `image` is relative to.
        path: The file.

    Raises UsageError, with the line, for a box that is not in [0, 1] or whose ends are swapped.
    """

    def __init__(self, images: str | None, path: str | None) -> None:
        self._root = existing_folder(images, "images").absolute()
        if path is None:
            raise UsageError('path: none given; add path=FILE, a JSONL of {"image", "box", "caption"}')
        self._path = existing_file(path, "path").absolute()
        self.files = ImageFiles(self._root)

    @cached_property
    def _records(self) -> list[Record]:
        found: dict[str, list[Region]] = {}
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    where = f"{self._path} line {number}"
                    image, region = _triplet(parse_json(decode(line, str(self._path), number), where), where)
                    found.setdefault(image, []).append(region)
        if not found:
            raise UsageError(f'{self._path}: no triplets; write {{"image", "box", "caption"}} a line')
        check_folder_prefix(self._root, list(found), str(self._path))
        return [Record(image, image, regions=regions) for image, regions in found.items()]


def _triplet(row: object, where: str) -> tuple[str, Region]:
    fields = expect(row, "an object", where)
    image = file_name(member(fields, "image", "text", where), where, "image")
    box = member(fields, "box", "a list", where)
    if len(box) != 4:
        raise UsageError(f"{where}: expected a box of 4 numbers, x0, y0, x1 and y1, got {shown(box)}")
    x0, y0, x1, y1 = (expect(edge, "a number", where, "box") for edge in box)
    if not (0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1):
        raise UsageError(
            f"{where}: expected a box with 0 <= x0 <= x1 <= 1 and the same for y, got {shown(box)}; write shares of "
            "width and height, and corners, not a corner and a size"
        )
    return image, Region((float(x0), float(y0), float(x1), float(y1)), member(fields, "caption", "text", where))
