"""Writes alt-texts, synthetic captions and what they were fused to as CapsFusion's releases have them."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from capkit.data.sources.capsfusion import ALT_TEXT, FUSED, SYNTHETIC, URL
from capkit.data.sources.parquet import pyarrow_module
from capkit.errors import UsageError
from capkit.utils.files import atomic_path

_ROWS = 10_000  # of a row group

AddRow = Callable[[str | None, str, str, str], None]
"""(address of the picture, alt-text, synthetic caption, fused caption)"""


def capsfusion_writer(path: str | Path) -> AbstractContextManager[AddRow]:
    """A function that adds rows to a .parquet table {image_url, laion_2b, laion_coco, capsfusion}, or to a .json list.

    The list has the last three. In the table a missing address is null. The file appears when the `with` ends without
    an error. Raises UsageError for other endings.
    """
    writers = {".parquet": _table, ".json": _list}
    if (ending := Path(path).suffix) not in writers:
        raise UsageError(f"expected a file that ends in {' or '.join(writers)}, got {Path(path).name!r}")
    return writers[ending](Path(path))


@contextmanager
def _table(path: Path) -> Iterator[AddRow]:
    arrow = pyarrow_module()
    schema = arrow.schema([(name, arrow.string()) for name in (URL, ALT_TEXT, SYNTHETIC, FUSED)])
    rows: list[dict[str, str | None]] = []
    with atomic_path(path) as temporary, arrow.parquet.ParquetWriter(temporary, schema) as table:

        def add(url: str | None, alt_text: str, synthetic: str, fused: str) -> None:
            rows.append({URL: url, ALT_TEXT: alt_text, SYNTHETIC: synthetic, FUSED: fused})
            if len(rows) == _ROWS:
                write()

        def write() -> None:
            table.write_table(arrow.Table.from_pylist(rows, schema=schema))
            rows.clear()

        yield add
        if rows:
            write()


@contextmanager
def _list(path: Path) -> Iterator[AddRow]:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        marks = iter(["[\n"])

        def add(url: str | None, alt_text: str, synthetic: str, fused: str) -> None:
            row = json.dumps({ALT_TEXT: alt_text, SYNTHETIC: synthetic, FUSED: fused}, ensure_ascii=False)
            file.write(next(marks, ",\n") + row)

        yield add
        file.write(next(marks, "\n") + "]\n")
