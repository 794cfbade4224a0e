"""docs/studies.md: for each file of effect tests, what was measured beside its threshold, a column a seed."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from benchmarks.studies.records import NOT_RUN, SEEDS, Record
from benchmarks.studies.remarks import FEWER, REMARKS

HEAD = """# Every effect, over three seeds

Written by `python -m benchmarks.studies`, not by hand: it runs the effect tests of `tests/effects` (those of the night
and of `--studies` too) as processes of one core, and goes on where it stopped. A test is one claim with its control.
Below its outcome stand the numbers that it compared, each beside what it wants of them. A control is a run without the
method: the same comparison must *not* hold for it (where a claim is several comparisons, at least one). CPU seconds
include the runs that an item was the first to need. *all*: tests that average over the seeds, or have none.
"""


def page(records: Iterable[Record]) -> str:
    by_file: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_file[record.file].append(record)
    columns = [*(f"seed {seed}" for seed in SEEDS), "all"]
    lines = [HEAD, f"| tests passed | {' | '.join(columns)} | CPU minutes |", "| --- |" + " --- |" * (len(columns) + 1)]
    for file, rows in sorted(by_file.items()):
        minutes = sum(row.cpu_seconds for row in rows) / 60
        passed = (_passed([row for row in rows if row.column == column]) for column in columns)
        lines.append(f"| [{file}](#{file.removesuffix('.py')}) | {' | '.join(passed)} | {minutes:.1f} |")
    lines += ["", *(f"- {file} has fewer: {why}" for file, why in sorted(FEWER.items()))]
    for file, rows in sorted(by_file.items()):
        lines += [f"\n## {file.removesuffix('.py')}\n", provenance(rows), *filter(None, [REMARKS.get(file)]), ""]
        lines += file_table(rows)
    return "\n".join(lines) + "\n"


def _passed(rows: Sequence[Record]) -> str:
    passed = sum(row.outcome == "passed" for row in rows)
    skipped = sum(row.outcome == "skipped" for row in rows)
    count = f"{passed} of {len(rows)}" if passed == len(rows) else f"**{passed} of {len(rows)}**"
    return (count + (f", {skipped} skipped" if skipped else "")) if rows else ""


def provenance(rows: Sequence[Record]) -> str:
    """When, of which code and with which versions: one sentence if all rows agree."""
    made = {
        f"{row.date[:10]}, commit {row.commit}, Python {row.python}, torch {row.torch}, transformers {row.transformers}"
        for row in rows
        if row.outcome != NOT_RUN
    }
    return "; ".join(sorted(made)) + "."


def file_table(rows: Sequence[Record]) -> list[str]:
    columns = [name for name in (*(f"seed {seed}" for seed in SEEDS), "all") if name in {row.column for row in rows}]
    lines = [f"| | wanted | {' | '.join(columns)} |", "| --- | --- |" + " --- |" * len(columns)]
    for test in dict.fromkeys(row.test for row in rows):
        found = {row.column: row for row in rows if row.test == test}
        cells = (_outcome(found[column]) if column in found else "" for column in columns)
        lines.append(f"| **{test}** | | {' | '.join(cells)} |")
        lines += [f"| {label} | {' | '.join(cells)} |" for label, cells in _number_rows(found, columns)]
        whys = dict.fromkeys(f"{column}: {row.why}" for column, row in found.items() if row.why)
        lines += [f"| {_escaped(why)} | |{' |' * len(columns)}" for why in whys]
    return lines


def _outcome(row: Record) -> str:
    outcome = row.outcome if row.outcome == "passed" else f"**{row.outcome}**"
    return outcome if row.outcome == NOT_RUN else f"{outcome}, {row.cpu_seconds:.0f} s"


def _number_rows(found: dict[str, Record], columns: Sequence[str]) -> list[tuple[str, list[str]]]:
    """A row for each number that a test compares; the n-th of one name is the n-th of each seed."""
    values: dict[tuple[str, str, int], dict[str, str]] = defaultdict(dict)
    for column, row in found.items():
        seen: dict[tuple[str, str], int] = defaultdict(int)
        for number in row.numbers:
            what = ": ".join(filter(None, [number["control"] and f"*{number['control']}*", number["what"]]))
            wanted = f"{'not ' if number['control'] else ''}{number['comparison']} {number['threshold']:.3g}"
            seen[what, wanted] += 1
            values[what, wanted, seen[what, wanted]][column] = f"{number['value']:.3g}"
    return [
        (f"{_escaped(what)} | {_escaped(wanted)}", [cells.get(column, "") for column in columns])
        for (what, wanted, _), cells in values.items()
    ]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
