"""Captioned boxes of objects that were seen from several places: the form in which an agent's views are given."""

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import UInt8

from capkit.data.files import ImageFiles
from capkit.data.records import Caption, Record
from capkit.data.sources.folder import check_folder_prefix, existing_folder
from capkit.errors import UsageError
from capkit.utils.ranges import NonNegativeFloat, check_ranges
from capkit.utils.text_files import decode, existing_file, expect, file_name, member, parse_json, shown

_ZIP = b"PK\x03\x04"  # how .npz files begin


@check_ranges
class ObjectCrops:
    """A record for each line of a JSONL of {"image", "box": [x0, y0, x1, y1] in [0, 1], "object", "caption"}.

    Its picture is the crop of `image` to the box, `margin` times the box's width and height wider on each side, and cut
    off at the picture's edges. Lines with the same `object` are views of one thing, wherever they stand; records are
    grouped by it, in the order of its first line, and a record's key is "<object>#<number of the view>". Metadata:
    `view_of` (the file) and `box`. Other members of a line are not read.

    Args:
        images: Folder that `image` is relative to.
        path: The file.
        margin: The released program's is .1.
        source: Of the captions: the name of the captioner that wrote them.

    Raises UsageError, with the line, for a box that is not in [0, 1] or has no area, and for .npz files: arrays of
    objects in them are pickles, and reading those can run any code.
    """

    def __init__(
        self, images: str | None, path: str | None, margin: NonNegativeFloat = 0.1, source: str = "captioner"
    ) -> None:
        self._root = existing_folder(images, "images").absolute()
        if path is None:
            raise UsageError('path: none given; add path=FILE, a JSONL of {"image", "box", "object", "caption"}')
        self._path = existing_file(path, "path").absolute()
        with self._path.open("rb") as file:
            if file.read(len(_ZIP)) == _ZIP:
                raise UsageError(
                    f'{self._path}: expected JSON lines of {{"image", "box", "object", "caption"}}, got an .npz file, '
                    "whose arrays of objects are pickles: reading them can run any code; convert files that you trust "
                    "(docs/views.md)"
                )
        self._margin, self._source = margin, source
        self._files = ImageFiles(self._root)

    @cached_property
    def _records(self) -> list[Record]:
        found: dict[str, list[Record]] = {}
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    where = f"{self._path} line {number}"
                    view = self._view(parse_json(decode(line, str(self._path), number), where), where)
                    views = found.setdefault(str(view.object), [])
                    view.key = f"{view.object}#{len(views)}"
                    views.append(view)
        if not found:
            raise UsageError(f'{self._path}: no views; write {{"image", "box", "object", "caption"}} a line')
        records = [view for views in found.values() for view in views]
        check_folder_prefix(self._root, [view.metadata["view_of"] for view in records], str(self._path))
        return records

    def _view(self, row: object, where: str) -> Record:
        fields = expect(row, "an object", where)
        image = file_name(member(fields, "image", "text", where), where, "image")
        name = member(fields, "object", "text", where)
        if not name.strip():
            raise UsageError(f"{where}: expected the name of an object, got {shown(name)}; name what the box shows")
        caption = Caption(member(fields, "caption", "text", where), self._source)
        box = _box(member(fields, "box", "a list", where), where)
        return Record("", captions=[caption], metadata={"view_of": image, "box": box}, object=name)

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> Record:
        return self._records[index]

    def image(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        record = self._records[index]
        return crop(self._files.load(record.metadata["view_of"]), record.metadata["box"], self._margin)


def crop(picture: UInt8[np.ndarray, "H W 3"], box: Sequence[float], margin: float) -> UInt8[np.ndarray, "h w 3"]:
    """The box, `margin` times its sides wider on each side, as whole pixels within the picture."""
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = box
    more_x, more_y = margin * (x1 - x0), margin * (y1 - y0)
    left, top = max(0, math.floor((x0 - more_x) * width)), max(0, math.floor((y0 - more_y) * height))
    right, bottom = min(width, math.ceil((x1 + more_x) * width)), min(height, math.ceil((y1 + more_y) * height))
    return picture[top:bottom, left:right]


def _box(box: list[object], where: str) -> list[float]:
    if len(box) != 4:
        raise UsageError(f"{where}: expected a box of 4 numbers, x0, y0, x1 and y1, got {shown(box)}")
    x0, y0, x1, y1 = (float(expect(edge, "a number", where, "box")) for edge in box)
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise UsageError(
            f"{where}: expected a box with 0 <= x0 < x1 <= 1 and the same for y, got {shown(box)}; write shares of the "
            "picture's width and height, and corners, not a corner and a size"
        )
    return [x0, y0, x1, y1]
