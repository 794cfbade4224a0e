"""What modular captioners do on SceneWorld, as the table of docs/modular.md: `python -m benchmarks.modular_effects`.

Nothing is trained here: numbers are read from docs/studies.json, which `python -m benchmarks.studies test_modular.py
--seeds 0 1 2` renews. Only what stands between the two marks of the page is written.
"""

from collections.abc import Iterable
from pathlib import Path

from benchmarks.guided_effects import with_tables
from benchmarks.studies.records import Record, read_table
from benchmarks.studies.table import file_table, provenance

ROOT = Path(__file__).parents[1]
PAGE, STUDIES = (ROOT / "docs" / name for name in ("modular.md", "studies.json"))
BEGIN = "<!-- python -m benchmarks.modular_effects -->"
FILE = "test_modular.py"


def table(records: Iterable[Record], file: str = FILE) -> str:
    """The numbers of every seed of a file of effect tests beside what is wanted of them."""
    rows = [record for record in records if record.file == file]
    if not rows:
        raise SystemExit(
            f"expected rows of {file} in {STUDIES}, got none; run python -m benchmarks.studies {file} first"
        )
    return "\n".join([provenance(rows), "", *file_table(rows), ""])


def write(page: Path, begin: str, file: str) -> None:
    """Put the file's table behind the page's mark."""
    page.write_text(with_tables(page.read_text(encoding="utf-8"), table(read_table(STUDIES), file), begin), "utf-8")
    print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    write(PAGE, BEGIN, FILE)
