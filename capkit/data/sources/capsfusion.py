"""The files of CapsFusion (Yu et al. 2023, arXiv 2310.20550): alt-texts, synthetic captions, and both fused.

    parquet   image_url, laion_2b, laion_coco, capsfusion          a row a picture (CapsFusion-120M, 113 million rows)
    JSON      a list of {laion_2b, laion_coco, capsfusion}         the inference program's input and output

The fused caption may be missing. In the released example it is called `capsfuion_official`.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from capkit.data.fingerprint import fingerprint_of
from capkit.data.images import BadImage
from capkit.data.records import Caption, Record
from capkit.data.sources.parquet import opened_table, pyarrow_module
from capkit.errors import UsageError
from capkit.utils.text_files import existing_file, expect, has_lone_surrogate, read_json, shown

URL, ALT_TEXT, SYNTHETIC, FUSED = "image_url", "laion_2b", "laion_coco", "capsfusion"
SOURCES = {ALT_TEXT: "alt_text", SYNTHETIC: "synthetic", FUSED: "capsfusion"}
"""The `source` of the caption of each column."""
_SPELLINGS = {FUSED: (FUSED, "capsfusion_official", "capsfuion_official")}


class _Group(NamedTuple):
    """Rows of a file that are read together. `first` counts all rows before them, `first_of_file` those before it."""

    file: Path
    number: int
    first: int
    first_of_file: int
    size: int


class CapsFusionTexts:
    """The captions of a file, without pictures: sources "alt_text", "synthetic" and, where there is one, "capsfusion".

    Every row is a record, in the order of the rows; its key is the file's name and the row's number, its metadata have
    the picture's `url`. A caption that is null or empty is left out. Of parquet tables a row group at a time is in
    memory, so that they are quick in order.

    Args:
        path: A .json file, a .parquet file, or a folder of .parquet files at any depth.

    Raises UsageError for files of another form, with the row.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        if self._path.is_dir():
            self._files = sorted(file for file in self._path.rglob("*.parquet") if file.is_file())
            if not self._files:
                raise UsageError(f"path: no .parquet file in {path!r}; give CapsFusion's tables, or a .json file")
        else:
            self._files = [existing_file(path, "path")]
        if wrong := [file for file in self._files if file.suffix.lower() not in (".json", ".parquet")]:
            raise UsageError(f"path: expected a .json or .parquet file, got {wrong[0].name!r}")
        if self._files[0].suffix.lower() == ".parquet":
            pyarrow_module()

    def fingerprint(self) -> str:
        """Of the files' names and sizes, and of when they were changed: rows are not read."""
        stats = [(self._name(file), file.stat().st_size, file.stat().st_mtime_ns) for file in self._files]
        return fingerprint_of(capsfusion=stats)

    @cached_property
    def _groups(self) -> list[_Group]:
        groups, first = [], 0
        for file in self._files:
            first_of_file = first
            for number, size in enumerate(_sizes(file)):
                if size:
                    groups.append(_Group(file, number, first, first_of_file, size))
                first += size
        return groups

    def __len__(self) -> int:
        return self._groups[-1].first + self._groups[-1].size if self._groups else 0

    def record(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        group = self._groups[bisect_right(self._groups, index, key=lambda group: group.first) - 1]
        row = _rows(group.file, group.number, group.file.stat().st_mtime_ns)[index - group.first]
        number = index - group.first_of_file
        return _record(row, f"{self._name(group.file)}/{number:08d}", f"{group.file} row {number}")

    def image(self, index: int) -> NoReturn:
        raise BadImage("CapsFusion's files have no pictures; download them by their url (docs/capsfusion.md)")

    def _name(self, file: Path) -> str:
        root = self._path if self._path.is_dir() else self._path.parent
        return file.relative_to(root).with_suffix("").as_posix()


def _sizes(file: Path) -> Iterator[int]:
    """The number of rows of each group of a file."""
    if file.suffix.lower() == ".json":
        yield len(_rows(file, 0, file.stat().st_mtime_ns))
        return
    table = opened_table(file)
    for number in range(table.num_row_groups):
        yield table.metadata.row_group(number).num_rows


@lru_cache(maxsize=2)
def _rows(file: Path, group: int, modified_ns: int) -> list[Any]:
    if file.suffix.lower() == ".json":
        return expect(read_json(file, "path"), "a list", str(file))
    table = opened_table(file)
    names = table.schema_arrow.names
    wanted = [name for name in (URL, ALT_TEXT, SYNTHETIC, *_SPELLINGS[FUSED]) if name in names]
    _check(names, str(file))
    return table.read_row_group(group, columns=wanted, use_threads=False).to_pylist()


def _check(names: Any, where: str) -> None:
    if missing := [name for name in (ALT_TEXT, SYNTHETIC) if name not in names]:
        raise UsageError(
            f"{where}: expected {ALT_TEXT}, {SYNTHETIC}, maybe {URL} and {FUSED}; {' and '.join(missing)} missing; "
            f"it has {', '.join(map(shown, list(names)[:8])) or 'nothing'}"
        )


def _record(row: Any, key: str, where: str) -> Record:
    cells: Mapping[str, Any] = expect(row, "an object", where)
    _check(cells, where)
    captions = []
    for column, source in SOURCES.items():
        found = [name for name in _SPELLINGS.get(column, (column,)) if cells.get(name) is not None]
        if len(found) > 1:
            raise UsageError(f"{where}: expected one fused caption, got {' and '.join(found)}; keep one of them")
        text = expect(cells[found[0]], "text", where, found[0]) if found else ""
        if has_lone_surrogate(text):
            raise UsageError(f"{where}: expected text as {found[0]!r}, got {shown(text)}; leave the row out")
        if text.strip():
            captions.append(Caption(text, source))
    url = cells.get(URL)
    return Record(key, captions=captions, metadata={} if url is None else {"url": expect(url, "text", where, URL)})
