"""MMVP-VLM: pairs of pictures that CLIP takes for the same, with a statement each (Tong et al. 2024, 2401.06209)."""

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

from jaxtyping import UInt8
from numpy import ndarray

from capkit.data.files import ImageFiles
from capkit.data.records import Caption, Record, check_unique_keys
from capkit.data.sources.folder import existing_folder
from capkit.errors import UsageError
from capkit.utils.text_files import file_name, read_text, shown

_COLUMNS = ["Question ID", "Type", "Statement"]


class MMVP:
    """Both pictures of each pair, each with its statement; the two of a pair share `bag`.

    `folder` holds the data set as released: `Questions.csv` with the columns Question ID, Type and Statement, where
    each odd question and the next form a pair, and the pictures as `MLLM_VLM Images/<Type>/<Question ID>.jpg`. A
    picture's key is its question ID. Metadata have `kind`, the visual pattern (Type) of the pair.
    """

    def __init__(self, folder: str) -> None:
        root = existing_folder(folder, "folder").absolute()
        self.files = ImageFiles(root)
        self._records = _records(root / "Questions.csv")

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> Record:
        return self._records[index]

    def image(self, index: int) -> UInt8[ndarray, "H W 3"]:
        return self.files.load(self._records[index].image)


def _records(path: Path) -> list[Record]:
    rows = _rows(path)
    if not rows or len(rows) % 2:
        raise UsageError(f"{path}: expected pairs of questions, got {len(rows)} rows; keep both of each pair")
    records = []
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        # Released code tells which statement is whose picture by odd and even: anything else would pair strangers.
        if first.number % 2 == 0 or second.number != first.number + 1:
            raise UsageError(
                f"{second.where}: expected an odd question and the next as a pair, got {first.number} and "
                f"{second.number}; keep the rows as released"
            )
        records += [row.record(pair=str(first.number)) for row in (first, second)]
    check_unique_keys(records, str(path))
    return records


class _Row(NamedTuple):
    where: str
    number: int
    kind: str
    statement: str

    def record(self, pair: str) -> Record:
        image = f"MLLM_VLM Images/{file_name(self.kind, self.where, 'Type')}/{self.number}.jpg"
        captions = [Caption(self.statement, source="mmvp")]
        return Record(str(self.number), image, captions, bag=pair, metadata={"kind": self.kind})


def _rows(path: Path) -> list[_Row]:
    rows = csv.reader(io.StringIO(read_text(path, "questions")))
    found = []
    try:
        header = [name.strip() for name in next(rows, [])]
        if header != _COLUMNS:
            got = ", ".join(header) or "none"
            raise UsageError(f"{path} line 1: expected the columns {', '.join(_COLUMNS)}; got {got}")
        for row in rows:
            found.append(_row([cell.strip() for cell in row], f"{path} line {rows.line_num}"))
    except csv.Error as error:
        raise UsageError(f"{path} line {rows.line_num}: {error}; give the table as released") from error
    return found


def _row(cells: list[str], where: str) -> _Row:
    if len(cells) != len(_COLUMNS) or not re.fullmatch(r"[0-9]{1,9}", cells[0]) or not cells[2]:
        raise UsageError(f"{where}: expected a whole number, a type and a statement; got {shown(cells)}")
    return _Row(where, int(cells[0]), cells[1], cells[2])
