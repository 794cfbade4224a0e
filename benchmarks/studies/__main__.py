"""Every effect test over three seeds, as a committed table: docs/studies.md, with all numbers in docs/studies.json.

    python -m benchmarks.studies [FILE ...] [--seeds 0 1 2] [--jobs N] [--out runs/studies] [--no-runs]
    python -m benchmarks.studies [FILE ...] [--seeds 0 1 2] --changed [--run]

Runs the items of tests/effects, nightly ones and studies too, as processes of one core each: items of one file and seed
together, divided where the committed table says that they take more than six CPU minutes. Items start from shared runs,
which the first process that asks makes while the others wait. Each item is recorded as it ends, in --out/records. What
lies there of this code is not run again, so a run that was cut goes on where it stopped, and records of several
machines can be put together; the table keeps the rows of items that were not run. Exits with 1 if an item failed or
left no record. Tables of docs/guided.md are made of the same records, and written too.

`--changed` lists the items whose row in the table is of another form of their file, of one that is not known, or not
there. It runs and writes nothing, unless with `--run`.
"""

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import guided_effects
from benchmarks.studies.records import (
    NOT_RUN,
    SEEDS,
    Record,
    file_of,
    form_of,
    hash_of_code,
    merged,
    read_lines,
    read_table,
    seed_of,
    write_table,
)
from benchmarks.studies.shards import shards, total
from benchmarks.studies.table import page

ROOT = Path(__file__).parents[2]
EFFECTS = "tests/effects"
JSON, PAGE = Path("docs/studies.json"), Path("docs/studies.md")
PYTEST = [sys.executable, "-m", "pytest", "-q", "--tier", "2", "--studies", "-p", "no:cacheprovider"]


def collect(root: Path) -> list[str]:
    """The items of every effect test, by name."""
    done = subprocess.run(
        [*PYTEST, "--collect-only", "--no-header", EFFECTS], cwd=root, stdout=subprocess.PIPE, text=True, check=False
    )
    items = [line for line in done.stdout.splitlines() if "::" in line and not line.startswith(("ERROR", "FAILED"))]
    if done.returncode or not items:
        raise SystemExit(f"expected pytest to collect the items of {EFFECTS}, got:\n{done.stdout[-2000:]}")
    return items


def commit_of(root: Path) -> str:
    """The commit, with a + where tracked files differ from it."""
    words = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return done.stdout.strip() or "unknown"


def changed(items: Sequence[str], old: Sequence[Record], root: Path) -> list[str]:
    """The items whose record is of another form of their file than that of now, or is not there."""
    forms = {record.item: record.form for record in old if record.outcome != NOT_RUN}
    files = {item.partition("::")[0] for item in items}
    now = {file: form_of((root / file).read_text(encoding="utf-8")) for file in files}
    return [item for item in items if forms.get(item) != now[item.partition("::")[0]]]


def run_shard(root: Path, items: Sequence[str], out: Path, shared: Path, name: str, given: dict[str, str]) -> int:
    """pytest's exit status; its output and records lie in `out`."""
    words = [f"--shared-runs={shared}", f"--record={out / name}.jsonl", f"--cpu-file={out / name}.cpu"]
    form = form_of((root / items[0].partition("::")[0]).read_text(encoding="utf-8"))
    words += [f"--record-with={key}={value}" for key, value in {**given, "form": form}.items()]
    with (out / f"{name}.log").open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run([*PYTEST, *words, *items], cwd=root, env=environment, stdout=log, stderr=log).returncode


def run_all(
    items: Sequence[str], root: Path, out: Path, shared: Path, jobs: int, commit: str, seconds: dict[str, float]
) -> list[Record]:
    """The records of items, of which those that `out` has of this code are not run again."""
    records = out / "records"  # shared runs write lines of their own
    records.mkdir(parents=True, exist_ok=True)
    code = hash_of_code(root)
    done = {record.item for record in read_lines(records) if record.code == code}
    parts = shards([item for item in items if item not in done], seconds)
    print(
        f"{len(items)} items, {len(done & set(items))} of them done; {len(parts)} processes, {jobs} at once", flush=True
    )

    def attempt(shard: list[str]) -> None:
        words = hashlib.sha256(" ".join(shard).encode()).hexdigest()[:6]
        name = f"{file_of(shard[0]).removesuffix('.py')}-{seed_of(shard[0])}-{words}"
        status = run_shard(root, shard, records, shared, name, {"commit": commit, "code": code})
        print(f"{name}: {len(shard)} items, known {total(shard, seconds):.0f} s, status {status}", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(attempt, parts))
    return [record for record in read_lines(records) if record.item in set(items)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="names of effect tests, all without")
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, help="only the items of these seeds")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="only items whose name holds one")
    parser.add_argument("--changed", action="store_true", help="list items whose file has changed since their row")
    parser.add_argument("--run", action="store_true", help="with --changed: run what it lists")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes at once, of one core each")
    parser.add_argument("--out", type=Path, default=Path("runs/studies"), help="records with logs, and shared runs")
    parser.add_argument("--shared-runs", type=Path, help="the folder of runs that items start from; OUT/shared without")
    parser.add_argument("--commit", help="what the code is called, where it is no git repository")
    parser.add_argument("--no-runs", action="store_true", help="only put what --out holds into the table")
    given = parser.parse_args()
    if given.run and not given.changed:
        parser.error("expected --run beside --changed, which lists; all else runs without it")
    out = given.out.resolve()
    known = collect(ROOT)
    files = {Path(word).name for word in given.files} or {file_of(item) for item in known}
    if unknown := files - {file_of(item) for item in known}:
        parser.error(f"expected files of {EFFECTS}, got {', '.join(sorted(unknown))}")
    items = [
        item
        for item in known
        if file_of(item) in files
        and (given.seeds is None or seed_of(item) in given.seeds)
        and any(word in item for word in given.only)
    ]
    old = read_table(ROOT / JSON)
    seconds = {record.item: record.cpu_seconds for record in old}
    if given.changed:
        items = changed(items, old, ROOT)
    if given.changed and not given.run:
        print(
            *items, f"{len(items)} items; those with a row took {total(items, seconds) / 60:.0f} CPU minutes", sep="\n"
        )
        return
    if given.no_runs:
        found = read_lines(out / "records")
    else:
        shared = (given.shared_runs or out / "shared").resolve()
        found = run_all(items, ROOT, out, shared, given.jobs, given.commit or commit_of(ROOT), seconds)
    records = merged(old, found, known)
    write_table(ROOT / JSON, records)
    (ROOT / PAGE).write_text(page(records), encoding="utf-8")
    guided_effects.main()
    outcomes = {record.item: record.outcome for record in records}
    missing = [item for item in items if outcomes[item] not in ("passed", "skipped")]
    print(*(f"{outcomes[item]}: {item}" for item in missing), sep="\n")
    print(f"{len(items) - len(missing)} of {len(items)} items passed or were skipped; {PAGE}")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
