"""Winoground: pairs of pictures whose captions have the same words in another order (Thrush et al. 2022)."""

from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray

from capkit.data.files import ImageFiles
from capkit.data.records import Caption, Record, check_unique_keys
from capkit.data.sources.folder import existing_folder
from capkit.utils.text_files import expect, file_name, member, read_json_or_lines


class Winoground:
    """Both pictures of each example (arXiv 2204.03162), each with its caption; the two of an example share `bag`.

    `folder` holds the data set as released: `examples.jsonl`, a line an example with id, caption_0, caption_1, image_0,
    image_1 and tags, and the pictures as `images/<image_0>.png`. A picture's key is its name, such as `ex_0_img_0`.
    Metadata have `kind`, the example's `collapsed_tag` (Object, Relation or Both), where it has one.
    """

    def __init__(self, folder: str) -> None:
        root = existing_folder(folder, "folder").absolute()
        self.files = ImageFiles(root)
        self._records = [
            record
            for where, value in read_json_or_lines(root / "examples.jsonl", "examples")
            for record in _both(expect(value, "an object", where), where)
        ]
        check_unique_keys(self._records, str(root / "examples.jsonl"))

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> Record:
        return self._records[index]

    def image(self, index: int) -> UInt8[ndarray, "H W 3"]:
        return self.files.load(self._records[index].image)


def _both(row: dict[str, Any], where: str) -> list[Record]:
    pair = str(member(row, "id", "text or a whole number", where))
    kind = {"kind": member(row, "collapsed_tag", "text", where)} if "collapsed_tag" in row else {}
    return [
        Record(
            name := file_name(member(row, f"image_{side}", "text", where), where, f"image_{side}"),
            str(Path("images", f"{name}.png")),
            [Caption(member(row, f"caption_{side}", "text", where), source="winoground")],
            bag=pair,
            metadata=dict(kind),
        )
        for side in (0, 1)
    ]
