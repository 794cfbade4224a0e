"""The tables of docs/preferences.md and docs/raters.md: `python -m benchmarks.preferences`.

Nothing is trained here. Effects on SceneWorld are read from docs/studies.json, which `python -m benchmarks.studies
test_preferences.py test_feedquill_effect.py test_dico_effect.py test_rater_effects.py --seeds 0 1 2` renews; what
random sides do from docs/random_sides.json (`python -m benchmarks.random_sides`); real photos from
docs/stamps_preferences.json and docs/stamps_rater.json (`python -m benchmarks.stamps.preferences`, `... .rater`). Only
what stands between the two marks of a page is written.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.guided_effects import with_tables
from benchmarks.studies.records import Record, read_table
from benchmarks.studies.table import file_table, provenance

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BEGIN = "<!-- python -m benchmarks.preferences -->"
EFFECTS = {
    "preferences.md": {
        "DPO": "test_preferences.py",
        "Raters and PPO": "test_feedquill_effect.py",
        "DiCO": "test_dico_effect.py",
    },
    "raters.md": {"Rankings and grades": "test_rater_effects.py"},
}
"""The effect tests whose numbers stand on each page."""

Number = float | int
Row = Mapping[str, Any]


def effects(records: Iterable[Record], files: Mapping[str, str]) -> str:
    """A part for each file of effect tests: the numbers of every seed beside what is wanted of them."""
    records, lines = list(records), list[str]()
    for title, file in files.items():
        rows = [row for row in records if row.file == file]
        if not rows:
            raise SystemExit(f"expected rows of {file}, got none; run python -m benchmarks.studies {file} first")
        lines += [f"### {title}", "", provenance(rows), "", *file_table(rows), ""]
    return "\n".join(lines)


def sides_table(rows: Sequence[Row]) -> str:
    """What random sides do: a row a run, those with drawn sides in the order of what their chosen captions say more."""
    start, judged, both, *draws = rows
    columns = ["colours that chosen captions say more", "probability of a colour"]
    columns += [f"{name}, {kind}" for name in ("fact precision", "true facts") for kind in ("greedy", "drawn")]
    lines = [f"| | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns)]
    for row in [start, judged, both, *sorted(draws, key=lambda row: row["lean"]["colours"])]:
        cells = [f"{row['lean']['colours']:+.2f}" if "lean" in row else "", f"{row['colour']:.3f}"]
        cells += [f"{row[f'{kind} {key}']:.3f}" for key in ("precision", "recall") for kind in ("greedy", "drawn")]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    told = (
        f"`python -m benchmarks.random_sides --draws {len(draws)}`, seed 0, 200 test pictures, of each four drawn. "
        f'Of {start["undecided"]:.2f} of the pictures the start\'s most probable colour and noun behind the first "a" '
        f"are less than .2 apart. {_correlation(draws)}"
    )
    return "\n".join([told, "", *lines, ""])


def _correlation(draws: Sequence[Row]) -> str:
    """Pearson's, over draws, of what the chosen captions say more and what is then said more."""
    if len(draws) < 3:
        return ""
    leans = [row["lean"]["colours"] for row in draws]
    told = [
        f"{pearson(leans, [row[name] for row in draws]):.2f} with {what}"
        for name, what in (
            ("colour", "the probability of a colour"),
            ("greedy recall", "true facts of greedy captions"),
        )
    ]
    return f"Over the {len(draws)} draws the colours that chosen captions say more correlate {' and '.join(told)}."


def pearson(xs: Sequence[Number], ys: Sequence[Number]) -> float:
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    products = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    spreads = sum((x - mean_x) ** 2 for x in xs) * sum((y - mean_y) ** 2 for y in ys)
    return products / spreads**0.5


def span(numbers: Sequence[Number]) -> str:
    """Percent with its interval."""
    return "{:.1f} ({:.1f} to {:.1f})".format(*(100 * number for number in numbers))


def stamps_preferences(found: Row) -> str:
    columns = list(found["retrieval"]["before"])
    lines = [f"| | {' | '.join(f'{name} %' for name in columns)} | CIDEr |", "| --- |" + " --- |" * (len(columns) + 1)]
    for name, numbers in found["retrieval"].items():
        ciders = " ".join(f"{value:.2f}" for value in found["cider"].get(name, []))
        lines.append(f"| {name} | {' | '.join(span(numbers[column]) for column in columns)} | {ciders} |")
    lines += [
        "",
        "| held-out pairs, each seed | accuracy | margin h | fall of the chosen, nats a token |",
        "| --- | --- | --- | --- |",
    ]
    for name, rows in found["held_out"].items():
        cells = (" ".join(f"{row[key]:.3f}" for row in rows) for key in ("accuracy", "margin", "chosen_drop"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    seeds, pairs = (" ".join(map(str, found[key])) for key in ("seeds", "num_pairs"))
    told = f"`python -m benchmarks.stamps.preferences --seeds {seeds}`; 118 test pictures, {pairs} pairs."
    return "\n".join([told, "", *lines, ""])


def stamps_rater(found: Row) -> str:
    columns = {"all": "all pairs", "others": "captions of other pictures", "cut": "cut captions"}
    lines = [f"| person's caption preferred, % | {' | '.join(columns.values())} |", "| --- |" + " --- |" * len(columns)]
    lines += [
        f"| {name} | {' | '.join(span(numbers[column]) for column in columns)} |"
        for name, numbers in found["numbers"].items()
    ]
    told = f"`python -m benchmarks.stamps.rater --seeds {' '.join(map(str, found['seeds']))}`; 118 test pictures."
    return "\n".join([told, "", *lines, ""])


@dataclass(frozen=True)
class Part:
    """What stands behind the effects on a page: made of the file that a command writes."""

    title: str
    file: str
    command: str
    table: Callable[[Any], str]

    def text(self, docs: Path) -> str:
        """The part; where the command was not run, that."""
        path = docs / self.file
        if not path.exists():
            return f"### {self.title}\n\nNot run yet: `{self.command}`.\n"
        return f"### {self.title}\n\n{self.table(json.loads(path.read_text(encoding='utf-8')))}"


PARTS = {
    "preferences.md": (
        Part("Sides drawn at random", "random_sides.json", "python -m benchmarks.random_sides", sides_table),
        Part("Real photos", "stamps_preferences.json", "python -m benchmarks.stamps.preferences", stamps_preferences),
    ),
    "raters.md": (Part("Real photos", "stamps_rater.json", "python -m benchmarks.stamps.rater", stamps_rater),),
}


def text_of(name: str, docs: Path = DOCS) -> str:
    """What stands between the marks of a page."""
    records = read_table(docs / "studies.json")
    return "\n".join([effects(records, EFFECTS[name]), *(part.text(docs) for part in PARTS[name])])


def main() -> None:
    for name in EFFECTS:
        page = DOCS / name
        page.write_text(with_tables(page.read_text(encoding="utf-8"), text_of(name), BEGIN), encoding="utf-8")
        print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
