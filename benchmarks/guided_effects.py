"""What guidance and control do, as tables of docs/guided.md: `python -m benchmarks.guided_effects`.

Nothing is trained here. Effects on SceneWorld are read from docs/studies.json, which `python -m benchmarks.studies FILE
...` renews, of the files in EFFECTS, and then writes these tables too; those on real pictures from
docs/guided_stamps.json, which `python -m benchmarks.stamps.guided` does. Only what stands between the two marks of the
page is written.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.studies.records import Record, read_table
from benchmarks.studies.table import file_table, provenance

ROOT = Path(__file__).parents[1]
PAGE, STUDIES, STAMPS = (ROOT / "docs" / name for name in ("guided.md", "studies.json", "guided_stamps.json"))
BEGIN, END = "<!-- python -m benchmarks.guided_effects -->", "<!-- to here -->"
EFFECTS = {
    "Guidance": ("test_guidance.py",),
    "Alignment levels": ("test_noc.py",),
    "Length and region": ("test_flexcap.py", "test_flexcap_regions.py"),
    "Language": ("test_language.py",),
    "Attention of nouns": ("test_attention.py",),
}
"""The parts of the page, and the effect tests that measure each."""

Table = Mapping[str, Any]


def tables(records: Iterable[Record], stamps: Iterable[Table]) -> str:
    """A part for each kind of effect, with the numbers of every seed beside what is wanted of them; then the stamps."""
    by_file: dict[str, list[Record]] = {}
    for record in records:
        by_file.setdefault(record.file, []).append(record)
    lines = []
    for title, files in EFFECTS.items():
        rows = [row for file in files for row in by_file[file]]
        lines += [f"### {title}", "", provenance(rows), "", *file_table(rows), ""]
    for table in stamps:
        lines += [f"### {table['title']}", "", table["about"], "", *_stamps_table(table), ""]
    return "\n".join(lines)


def _stamps_table(table: Table) -> list[str]:
    header, rows = table["columns"], table["rows"]
    return [f"| {' | '.join(header)} |", "|" + " --- |" * len(header), *(f"| {' | '.join(row)} |" for row in rows)]


def with_tables(page: str, text: str, begin: str = BEGIN) -> str:
    """The page with `text` between two marks, `begin` and END; all else stays."""
    before, found, rest = page.partition(begin)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise SystemExit(f"expected {begin} and, behind it, {END} in the page; put them where the tables are to stand")
    return f"{before}{begin}\n\n{text}\n{END}{after}"


def main() -> None:
    stamps = json.loads(STAMPS.read_text(encoding="utf-8"))
    text = with_tables(PAGE.read_text(encoding="utf-8"), tables(read_table(STUDIES), stamps))
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
