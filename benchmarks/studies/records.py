"""Records of effect tests: one a test item, as `pytest --record` writes them, and the file that is committed."""

import ast
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2)
NOT_RUN = "not run"
STOPPED = "stop_signal.Stopped"  # capkit's, on SIGTERM
OWN_SEED = re.compile(r"-?\bseed(\d+)\b-?")
READ_BY_EFFECTS = (
    "capkit/**/*.py",
    "configs/**/*.yaml",
    "tests/effects/**/*.py",
    "tests/effects/**/*.json",
    "benchmarks/rl/*.py",
    "benchmarks/starts.py",
)


@dataclass(frozen=True)
class Record:
    """What one item of an effect test did. `seeds`: its own, or all where it averages over them, or none.

    `form` is the `form_of` its file when it ran; "" where that is not known.
    """

    item: str
    seeds: tuple[int, ...]
    outcome: str
    why: str
    cpu_seconds: float
    date: str
    commit: str
    python: str
    torch: str
    transformers: str
    numbers: list[dict[str, Any]] = field(default_factory=list)
    code: str = ""
    form: str = ""

    @property
    def file(self) -> str:
        return file_of(self.item)

    @property
    def test(self) -> str:
        """The test in words, with its case, without its seed."""
        name, _, case = self.item.partition("::")[2].removeprefix("test_").partition("[")
        case = OWN_SEED.sub("", case.removesuffix("]"))
        return name.replace("_", " ") + (f" [{case}]" if case else "")

    @property
    def column(self) -> str:
        return f"seed {self.seeds[0]}" if len(self.seeds) == 1 else "all"


def file_of(item: str) -> str:
    return item.partition("::")[0].rpartition("/")[2]


def seed_of(item: str) -> int | None:
    """The seed in an item's name."""
    found = OWN_SEED.search(item.partition("::")[2])
    return int(found[1]) if found else None


def hash_of_code(root: Path) -> str:
    """A hash of the files that an effect test reads: a record of other code is made again."""
    files = {file for pattern in READ_BY_EFFECTS for file in root.glob(pattern)}
    parts = (str(file.relative_to(root)).encode() + file.read_bytes() for file in sorted(files))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def form_of(source: str) -> str:
    """A hash of a test file's statements: comments, layout and docstrings do not count, nor does Python's version."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
        if isinstance(node, ast.JoinedStr):  # some releases end a nested format in an empty part
            node.values = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
    return hashlib.sha256(_dump(tree).encode()).hexdigest()[:12]


def _dump(node: object) -> str:
    """A syntax tree as text, without empty fields, which ast.dump writes or not by Python's version."""
    if isinstance(node, list):
        return f"[{','.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, []) or name == "value"]
    return f"{type(node).__name__}({','.join(f'{name}={_dump(value)}' for name, value in fields)})"


def read_lines(folder: Path) -> list[Record]:
    """Of all files that `--record` wrote below a folder, oldest first.

    Left out are a line that was cut off, and an item that was stopped from outside: it has not failed.
    """
    lines = [
        line
        for file in sorted(folder.rglob("*.jsonl"), key=lambda file: file.stat().st_mtime)
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.endswith("}")
    ]
    records = [_record(json.loads(line)) for line in lines]
    return [record for record in records if STOPPED not in record.why]


def read_table(file: Path) -> list[Record]:
    return [_record(row) for row in json.loads(file.read_text(encoding="utf-8"))] if file.exists() else []


def write_table(file: Path, records: Iterable[Record]) -> None:
    rows = [json.dumps({**asdict(record), "seeds": list(record.seeds)}) for record in records]
    file.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")


def merged(old: Iterable[Record], new: Iterable[Record], items: Iterable[str]) -> list[Record]:
    """The latest record of each item that there still is, in the order of the items; of those without one, that.

    Of the same second the new one, as of the same day where one has no time.
    """
    known: dict[str, Record] = {}
    for record in (*old, *new):
        before = known.get(record.item)
        digits = min(len(record.date), len(before.date)) if before is not None else 0
        if before is None or record.date[:digits] >= before.date[:digits]:
            known[record.item] = record
    return [known.get(item) or _not_run(item) for item in sorted(items, key=file_of)]


def _not_run(item: str) -> Record:
    seed = seed_of(item)
    seeds = () if seed is None else (seed,)
    return Record(item, seeds, NOT_RUN, "", 0.0, date="", commit="", python="", torch="", transformers="")


def _record(row: dict[str, Any]) -> Record:
    return Record(**{**row, "seeds": tuple(row["seeds"])})
