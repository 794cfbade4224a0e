"""Parquet tables of captioned images, one row an image, as data sets on Hugging Face's hub are stored.

Needs the extra `capkit[parquet]`: pyarrow is 50 MB, and only this reader uses it.
"""

import re
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NamedTuple

from jaxtyping import UInt8
from numpy import ndarray

from capkit.data.files import ImageFiles
from capkit.data.hub_tables import SCHEME, fetched, parse_address
from capkit.data.images import MAX_BYTES, BadImage, load_rgb
from capkit.data.records import Caption, Record
from capkit.data.sources.caption_files import CaptionRow, check_rows
from capkit.data.sources.caption_tables import CAPTION_COLUMNS, FILE_COLUMNS, caption_columns, file_column
from capkit.data.sources.folder import existing_folder
from capkit.data.splits import check_shares, rows_of_split
from capkit.errors import UsageError
from capkit.text.caption_text import caption_texts
from capkit.utils.ranges import Range, Seed, check_ranges
from capkit.utils.text_files import SPLIT_OF, file_name, split_name

_PICTURE = "image"  # the hub's column of a picture: its file's bytes, or {"bytes", "path"}
_METADATA = {"img_id": "image_id", "sentids": "sentids"}  # columns, and their names in a record's metadata


class _Row(NamedTuple):
    """A row, and where its picture lies."""

    caption_row: CaptionRow
    file: Path
    row_group: int
    place: int


@check_ranges
class Parquet:
    """One split of the tables in a folder.

    The split is that of the column `split`, else of the table's name (`train-00000-of-00002.parquet`) or of its folder
    (`train/0000.parquet`), as `datasets` and the hub name them. Read are the columns `filename`, `caption` (a text or a
    list of texts) and, where there are such, `img_id` and `sentids` as metadata. A record's key is the file name
    without its ending, as of Flickr30k's Karpathy file, so that sets of captions of the same pictures share keys;
    without file names it is SPLIT/TABLE/ROW. Pictures are files of `images`, or bytes of the column `image`: these are
    read a row group at a time (100 pictures or more), which is quick in order and slow in a shuffled one; `capkit
    shard` makes tars of them that are quick in any order.

    Args:
        folder: Folder of .parquet files, at any depth; or `hf://datasets/OWNER/NAME[@REVISION]`, a data set of the hub,
            whose tables are fetched into its cache.
        split: "train", "val" or "test".
        images: Folder of the pictures, if the tables do not hold them, or in place of those that they hold.
        language: BCP 47 tag of the captions.
        source: Who wrote the captions: "human", or for example the name of a translator.
        val: If no table is of val, the share of train to use, chosen by a hash of (seed, key).
        test: Likewise for test.
    """

    def __init__(
        self,
        folder: str,
        split: str,
        images: str | None = None,
        language: str = "en",
        source: str = "human",
        val: Annotated[float | int, Range(0, below=1)] = 0.05,
        test: Annotated[float | int, Range(0, below=1)] = 0.05,
        seed: Seed = 0,
    ) -> None:
        self._given = folder
        if folder.startswith(SCHEME):
            parse_address(folder)
        else:
            _existing(folder)
        if split not in ("train", "val", "test"):
            raise UsageError(f"split must be train, val or test; got {split!r}")
        check_shares(val, test)
        pyarrow_module()
        self._val, self._test, self._seed = val, test, seed
        self._split, self._language, self._source = split, language, source
        if images is not None:
            self.files = ImageFiles(existing_folder(images, "images").absolute())
        self._read_group: tuple[Path, int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_read_group": None}  # pictures stay in their process

    @cached_property
    def _folder(self) -> Path:
        if self._given.startswith(SCHEME):
            return fetched(*parse_address(self._given))
        return _existing(self._given).absolute()

    def prepare(self) -> None:
        """Fetch the tables, if they are the hub's."""
        assert self._folder

    @cached_property
    def _rows(self) -> list[_Row]:
        found = sorted(path for path in self._folder.rglob("*.parquet") if path.is_file())
        if not found:
            raise _no_tables(self._folder)
        rows = _read(tuple((path, path.stat().st_mtime_ns) for path in found), self._language, self._source)
        own = rows_of_split(
            [row.caption_row for row in rows], self._split, self._val, self._test, self._seed, str(self._folder)
        )
        keys = {row.record.key for row in own}
        chosen = [row for row in rows if row.caption_row.record.key in keys]
        if not chosen:
            splits = ", ".join(dict.fromkeys(str(row.caption_row.split) for row in rows)) or "none"
            raise UsageError(
                f"{self._folder}: no images in split {self._split!r}; it has {splits}; set data.{self._split}=null to "
                "do without it"
            )
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


def _existing(folder: str) -> Path:
    try:
        return existing_folder(folder, "folder")
    except UsageError as error:
        if re.fullmatch(r"[\w.-]+/[\w.-]+", folder):
            raise UsageError(f"{error}; a data set of the hub is folder=hf://datasets/{folder}") from error
        raise


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
    holds_pictures = _PICTURE in table.schema_arrow.names
    for columns, found in ((FILE_COLUMNS, file_at is not None or holds_pictures), (CAPTION_COLUMNS, captions_at)):
        if not found:
            raise UsageError(f"{path}: no column named {' or '.join(columns)}; the columns are {', '.join(names)}")
    split = None if "split" in names else _split_of(path, names)
    caption_names = [names[place] for place in captions_at]
    metadata_names = [name for name in _METADATA if name in names]
    file_names = [] if file_at is None else [names[file_at]]
    split_names = ["split"] if split is None else []
    columns_read = list(dict.fromkeys([*file_names, *caption_names, *split_names, *metadata_names]))
    rows: list[_Row] = []
    for group in range(table.num_row_groups):
        cells_of_rows = table.read_row_group(group, columns=columns_read, use_threads=False).to_pylist()
        for place, cells in enumerate(cells_of_rows):
            where = f"{path} row group {group}, row {place}"
            own = split_name(cells["split"], where) if split is None else split
            name = None if file_at is None else file_name(cells[names[file_at]], where)
            named = PurePosixPath(name).with_suffix("").as_posix() if name else f"{own}/{path.stem}/{len(rows)}"
            record = Record(
                key=named,
                image=name,
                captions=[
                    Caption(text, source, language)
                    for column in caption_names
                    for text in caption_texts(cells[column], where)
                ],
                metadata={
                    **({} if name is None else {"filename": name}),
                    **{_METADATA[column]: cells[column] for column in metadata_names},
                },
            )
            rows.append(_Row(CaptionRow(record, own), path, group, place))
    return rows


def _split_of(path: Path, names: list[str]) -> str:
    """The split of a table without such a column, by its name, else by its folder's."""
    for word in (re.split(r"[-_.]", path.stem)[0], path.parent.name):
        if word.lower() in SPLIT_OF:
            return SPLIT_OF[word.lower()]
    raise UsageError(
        f"{path}: no column named split (the columns are {', '.join(names)}), and neither the file's name nor its "
        "folder's begins with one; name it such as train-00000-of-00001.parquet, validation.parquet or test.parquet"
    )


def _no_tables(folder: Path) -> UsageError:
    if any(folder.rglob("*.arrow")):
        return UsageError(
            f"folder: expected .parquet files, got a data set of `save_to_disk` in {str(folder)!r}; write its splits "
            "by datasets.load_from_disk(FOLDER)['train'].to_parquet('NEW/train.parquet'), and give NEW"
        )
    return UsageError(f"folder: no .parquet file in {str(folder)!r}; give the folder of a data set's files")
