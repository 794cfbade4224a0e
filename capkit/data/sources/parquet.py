"""Parquet tables of captioned images, one row an image, as data sets on Hugging Face's hub are stored.

Needs the extra `capkit[parquet]`: pyarrow is 50 MB, and only this reader uses it.
"""

from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from jaxtyping import UInt8
from numpy import ndarray

from capkit.data.files import ImageFiles
from capkit.data.images import MAX_BYTES, BadImage, load_rgb
from capkit.data.records import Caption, Record
from capkit.data.sources.caption_files import CaptionRow, check_rows
from capkit.data.sources.caption_tables import CAPTION_COLUMNS, FILE_COLUMNS, caption_columns, file_column
from capkit.data.sources.folder import existing_folder
from capkit.errors import UsageError
from capkit.text.caption_text import caption_texts
from capkit.utils.text_files import file_name, split_name

_PICTURE = "image"  # the hub's column of a picture: its file's bytes, or {"bytes", "path"}
_METADATA = {"img_id": "image_id", "sentids": "sentids"}  # columns, and their names in a record's metadata


class _Row(NamedTuple):
    """A row, and where its picture lies."""

    caption_row: CaptionRow
    file: Path
    row_group: int
    place: int


class Parquet:
    """One split of the tables in a folder, by their `split` column.

    Read are the columns `filename`, `caption` (a text or a list of texts) and `split`, and where there are such,
    `img_id` and `sentids` as metadata. A record's key is the file name without its ending, as of Flickr30k's Karpathy
    file, so that sets of captions of the same pictures share keys. Pictures are files of `images`, or bytes of the
    column `image`: these are read a row group at a time (100 pictures or more), which is quick in order and slow in a
    shuffled one; `capkit shard` makes tars of them that are quick in any order.

    Args:
        folder: Folder of .parquet files, at any depth.
        split: "train", "val" or "test".
        images: Folder of the pictures, if the tables do not hold them, or in place of those that they hold.
        language: BCP 47 tag of the captions.
        source: Who wrote the captions: "human", or for example the name of a translator.
    """

    def __init__(
        self, folder: str, split: str, images: str | None = None, language: str = "en", source: str = "human"
    ) -> None:
        self._folder = existing_folder(folder, "folder").absolute()
        if split not in ("train", "val", "test"):
            raise UsageError(f"split must be train, val or test; got {split!r}")
        pyarrow_module()
        self._split, self._language, self._source = split, language, source
        if images is not None:
            self.files = ImageFiles(existing_folder(images, "images").absolute())
        self._read_group: tuple[Path, int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_read_group": None}  # pictures stay in their process

    @cached_property
    def _rows(self) -> list[_Row]:
        found = sorted(path for path in self._folder.rglob("*.parquet") if path.is_file())
        if not found:
            raise UsageError(
                f"folder: no .parquet file in {str(self._folder)!r}; give the folder of a data set's files"
            )
        rows = _read(tuple((path, path.stat().st_mtime_ns) for path in found), self._language, self._source)
        chosen = [row for row in rows if row.caption_row.split == self._split]
        if not chosen:
            splits = ", ".join(dict.fromkeys(str(row.caption_row.split) for row in rows)) or "none"
            raise UsageError(f"{self._folder}: no images in split {self._split!r}; it has {splits}")
        return chosen

    def __len__(self) -> int:
        return len(self._rows)

    def record(self, index: int) -> Record:
        return self._rows[index].caption_row.record

    def encoded(self, index: int) -> bytes:
        """The bytes of a picture's file. Raises BadImage if there is none."""
        row = self._rows[index]
        if hasattr(self, "files"):
            return self.files.read(row.caption_row.record.image)
        picture = self._pictures(row)[row.place].as_py()
        data = picture.get("bytes") if isinstance(picture, dict) else picture
        if not isinstance(data, bytes):
            raise BadImage("the table's row holds no picture; give its files' folder as images")
        return data[:MAX_BYTES]

    def image(self, index: int) -> UInt8[ndarray, "H W 3"]:
        return load_rgb(self.encoded(index))

    def _pictures(self, row: _Row) -> Any:
        """The pictures of the row's group, kept until another group is asked for."""
        if self._read_group is None or self._read_group[:2] != (row.file, row.row_group):
            table = opened_table(row.file)
            if _PICTURE not in table.schema_arrow.names:
                raise UsageError(
                    f"{row.file}: no column {_PICTURE!r}; it has {', '.join(table.schema_arrow.names)}; give "
                    "data.train.images=DIR, the folder of the pictures"
                )
            group = table.read_row_group(row.row_group, columns=[_PICTURE], use_threads=False)
            self._read_group = (row.file, row.row_group, group.column(_PICTURE))
        return self._read_group[2]


def pyarrow_module() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            "parquet files are read by pyarrow, which is not installed; pip install 'capkit[parquet]'"
        ) from error
    return pyarrow


def opened_table(path: Path) -> Any:
    arrow = pyarrow_module()
    try:
        return arrow.parquet.ParquetFile(path)
    except (OSError, arrow.ArrowException) as error:
        raise UsageError(f"{path}: cannot be read as parquet ({error}); download it again") from error


@lru_cache(maxsize=4)
def _read(files: tuple[tuple[Path, int], ...], language: str, source: str) -> list[_Row]:
    """The rows of all files, without pictures. Cached, since train, val and test share the files."""
    rows = [row for path, _ in files for row in _rows_of(path, language, source)]
    check_rows([row.caption_row for row in rows], str(files[0][0].parent))
    return rows


def _rows_of(path: Path, language: str, source: str) -> list[_Row]:
    table = opened_table(path)
    names = [name for name in table.schema_arrow.names if name != _PICTURE]
    file_at, captions_at = file_column(names), caption_columns(names)
    for columns, found in (
        (FILE_COLUMNS, file_at is not None),
        (CAPTION_COLUMNS, captions_at),
        (("split",), "split" in names),
    ):
        if not found:
            raise UsageError(f"{path}: no column named {' or '.join(columns)}; the columns are {', '.join(names)}")
    assert file_at is not None
    caption_names = [names[place] for place in captions_at]
    metadata_names = [name for name in _METADATA if name in names]
    columns_read = list(dict.fromkeys([names[file_at], *caption_names, "split", *metadata_names]))
    rows = []
    for group in range(table.num_row_groups):
        cells_of_rows = table.read_row_group(group, columns=columns_read, use_threads=False).to_pylist()
        for place, cells in enumerate(cells_of_rows):
            where = f"{path} row group {group}, row {place}"
            name = file_name(cells[names[file_at]], where)
            record = Record(
                key=PurePosixPath(name).with_suffix("").as_posix(),
                image=name,
                captions=[
                    Caption(text, source, language)
                    for column in caption_names
                    for text in caption_texts(cells[column], where)
                ],
                metadata={"filename": name, **{_METADATA[column]: cells[column] for column in metadata_names}},
            )
            rows.append(_Row(CaptionRow(record, split_name(cells["split"], where)), path, group, place))
    return rows
