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


def table(records: Iterable[Record]) -> str:
    """The numbers of every seed beside what is wanted of them."""
    rows = [record for record in records if record.file == FILE]
    if not rows:
        raise SystemExit(
            f"expected rows of {FILE} in {STUDIES}, got none; run python -m benchmarks.studies {FILE} first"
        )
    return "\n".join([provenance(rows), "", *file_table(rows), ""])


def main() -> None:
    text = with_tables(PAGE.read_text(encoding="utf-8"), table(read_table(STUDIES)), BEGIN)
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
