"""Visual Genome: 108,077 pictures with 5.4 million described regions (Krishna et al. 2017, arXiv 1602.07332)."""

from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NamedTuple

from capkit.data.files import ImageFiles
from capkit.data.records import Record, Region
from capkit.data.sources.caption_files import CaptionRow, check_rows
from capkit.data.sources.folder import check_folder_prefix, existing_folder
from capkit.data.sources.listed import ListedPictures
from capkit.data.splits import check_shares, rows_of_split
from capkit.errors import UsageError
from capkit.utils.ranges import Range, Seed, check_ranges
from capkit.utils.text_files import existing_file, expect, member, read_json, shown

SPLITS = ("train", "val", "test")


@check_ranges
class VisualGenome(ListedPictures):
    """One split of region_descriptions.json: pictures with regions and no captions, for captions_of=regions.

    Boxes are cut at the picture's edges. What has no area then, or no phrase, keeps its place among the regions: runs
    list it as skipped. A record's key is the picture's id.

    Args:
        images: Folder of the pictures: in the folders VG_100K and VG_100K_2, or all in one.
        regions: region_descriptions.json.
        image_data: image_data.json of the same release, which has the pictures' sizes.
        split: "train", "val" or "test".
        splits: Lists of picture ids by split, such as densecap_splits.json of DenseCap (arXiv 1511.07571); pictures
            in none of them are not used. Null: `val` and `test` are shares, chosen by a hash of (seed, key).
    """

    def __init__(
        self,
        images: str | None,
        regions: str | None,
        image_data: str | None,
        split: str,
        splits: str | None = None,
        val: Annotated[float | int, Range(0, below=1)] = 0.05,
        test: Annotated[float | int, Range(0, below=1)] = 0.05,
        seed: Seed = 0,
    ) -> None:
        self._root = existing_folder(images, "images").absolute()
        for name, file in (("regions", regions), ("image_data", image_data)):
            if file is None:
                what = "region_descriptions.json" if name == "regions" else "image_data.json"
                raise UsageError(f"{name}: none given; add {name}=FILE, Visual Genome's {what}")
        self._regions = existing_file(str(regions), "regions").absolute()
        self._sizes = existing_file(str(image_data), "image_data").absolute()
        self._splits = None if splits is None else existing_file(splits, "splits").absolute()
        if split not in SPLITS:
            raise UsageError(f"split: expected {', '.join(SPLITS)}; got {split!r}; set one of them")
        check_shares(val, test)
        self._split, self._val, self._test, self._seed = split, val, test, seed
        self.files = ImageFiles(self._root)

    @cached_property
    def _records(self) -> list[Record]:
        in_folders = any((self._root / folder).is_dir() for folder in ("VG_100K", "VG_100K_2"))
        rows = _read(self._regions, self._sizes, in_folders, _modified(self._regions, self._sizes))
        if self._splits is not None:
            split_of = _read_splits(self._splits)
            rows = [CaptionRow(row.record, split_of.get(row.record.key)) for row in rows]
            rows = [row for row in rows if row.split is not None]
        check_rows(rows, str(self._regions))
        chosen = rows_of_split(rows, self._split, self._val, self._test, self._seed, str(self._regions))
        if not chosen:
            raise UsageError(f"{self._regions}: no pictures in split {self._split!r}; choose another, or other splits")
        check_folder_prefix(self._root, [str(row.record.image) for row in chosen], str(self._regions))
        return [row.record for row in chosen]


class _Picture(NamedTuple):
    file: str  # folder and name, as in the picture's address
    width: int
    height: int


def _modified(*paths: Path) -> tuple[int, ...]:
    return tuple(path.stat().st_mtime_ns for path in paths)


@lru_cache(maxsize=1)
def _read(regions: Path, sizes: Path, in_folders: bool, modified_ns: tuple[int, ...]) -> list[CaptionRow]:
    """Every picture with its regions. Cached, since the sources of train, val and test share the files."""
    pictures = _read_pictures(sizes)
    content = read_json(regions, "regions")
    if not isinstance(content, list) or not content:
        raise UsageError(f"{regions}: expected a list of pictures, got {shown(content)}; give region_descriptions.json")
    rows = []
    for number, entry in enumerate(content):
        where = f"{regions} picture {number}"
        image_id = member(expect(entry, "an object", where), "id", "a whole number", where)
        if image_id not in pictures:
            raise UsageError(f"{where}: {sizes} has no picture {image_id}; give the files of one release")
        picture = pictures[image_id]
        found = [_region(row, picture, f"{where} region {k}") for k, row in enumerate(_list(entry, where))]
        image = picture.file if in_folders else PurePosixPath(picture.file).name
        rows.append(CaptionRow(Record(str(image_id), image, regions=found, metadata={"image_id": image_id})))
    return rows


def _list(entry: dict[str, Any], where: str) -> list[Any]:
    found: list[Any] = member(entry, "regions", "a list", where)
    return found


def _region(row: Any, picture: _Picture, where: str) -> Region:
    expect(row, "an object", where)
    x, y, width, height = (member(row, name, "a number", where) for name in ("x", "y", "width", "height"))
    x0, x1 = (min(max(edge, 0), picture.width) / picture.width for edge in (x, x + max(width, 0)))
    y0, y1 = (min(max(edge, 0), picture.height) / picture.height for edge in (y, y + max(height, 0)))
    return Region((x0, y0, x1, y1), member(row, "phrase", "text", where))


def _read_pictures(path: Path) -> Mapping[int, _Picture]:
    content = read_json(path, "image_data")
    if not isinstance(content, list) or not content:
        raise UsageError(f"{path}: expected a list of pictures, got {shown(content)}; give image_data.json")
    found: dict[int, _Picture] = {}
    for number, row in enumerate(content):
        where = f"{path} picture {number}"
        # Both are there: Visual Genome's own Python driver takes either name.
        key = "id" if "id" in expect(row, "an object", where) else "image_id"
        image_id = member(row, key, "a whole number", where)
        address = PurePosixPath(member(row, "url", "text", where))
        width, height = (member(row, name, "a whole number", where) for name in ("width", "height"))
        if width < 1 or height < 1:
            raise UsageError(f"{where}: expected a picture of at least a pixel, got {width} x {height}; check the file")
        if image_id in found:
            raise UsageError(f"{where}: two pictures have the id {image_id}; give each its own")
        found[image_id] = _Picture("/".join(address.parts[-2:]), width, height)
    return found


def _read_splits(path: Path) -> dict[str, str]:
    """The split of each picture's key."""
    content = read_json(path, "splits")
    if not isinstance(content, dict) or not set(content) <= set(SPLITS) or not content:
        raise UsageError(
            f"{path}: expected lists of picture ids, train, val and test; got {shown(content)}; give e.g. DenseCap's "
            "densecap_splits.json"
        )
    split_of: dict[str, str] = {}
    for split in content:
        for number, image_id in enumerate(member(content, split, "a list", str(path))):
            key = str(expect(image_id, "a whole number", f"{path} {split}, entry {number}"))
            if key in split_of:
                raise UsageError(f"{path}: picture {key} is in {split_of[key]} and again in {split}; name it once")
            split_of[key] = split
    return split_of
