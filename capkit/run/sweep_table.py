"""One table of a sweep's runs: what each was given, and its final numbers."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from capkit.run.folder import RunFolder, read_object
from capkit.utils.console import Screen, say
from capkit.utils.files import write_atomically, write_json

GIVEN, TABLE = "sweep.json", "results.csv"
NUM_SHOWN = 5  # numbers of a run on the screen; the file has all
# Shown first, the ones that there are.
_FIRST = ("cider", "fact_f1", "bleu_4", "spice", "clip_score_mean", "text_r1", "t2i_r1", "retrieval_t2i_r1", "auroc")


def note_given(folder: Path, overrides: Sequence[str], **more: Any) -> None:
    """Write what a run of a sweep was given into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / GIVEN, {"overrides": list(overrides), **more})


def sweep_rows(sweep: Path) -> list[dict[str, Any]]:
    """A row a run in the order of their numbers: `run`, what differs between runs by key, and its numbers by name.

    A run that has not ended has no numbers.
    """
    folders = [path for path in sweep.iterdir() if path.name.isdigit() and (path / GIVEN).is_file()]
    folders.sort(key=lambda path: int(path.name))
    given = [_by_key(read_object(path / GIVEN, "start the sweep again")["overrides"]) for path in folders]
    keys = list(dict.fromkeys(key for own in given for key in own))
    varied = [key for key in keys if len({own.get(key) for own in given}) > 1]
    return [
        {"run": path.name, **{key: own.get(key, "") for key in varied}, **RunFolder(path).metrics()}
        for path, own in zip(folders, given, strict=True)
    ]


def _by_key(overrides: Sequence[str]) -> dict[str, str]:
    pairs = (override.lstrip("+").partition("=") for override in overrides)
    return {key: value for key, _, value in pairs}


def write_sweep_table(sweep: Path) -> None:
    """Write results.csv into a sweep's folder, and print the numbers that matter first."""
    rows = sweep_rows(sweep)
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, names, restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(sweep / TABLE, buffer.getvalue())
    Screen().print(_table(rows, names))
    say(f"wrote {sweep / TABLE}")


def _table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    given = [name for name in names if "/" not in name or not isinstance(_first(rows, name), float | int)]
    numbers = [name for name in names if re.fullmatch(r"test/[^/]+", name) and name not in given]
    leading = [f"test/{name}" for name in _FIRST if f"test/{name}" in numbers]
    shown = list(dict.fromkeys([*leading, *numbers]))[:NUM_SHOWN]
    table = Table(*given, *(name.removeprefix("test/") for name in shown), title="on the test split")
    for row in rows:
        values = [f"{row[name]:.4f}" if name in row else "" for name in shown]
        table.add_row(*(str(row[name]) for name in given), *values)
    return table


def _first(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    return next(row[name] for row in rows if name in row)
