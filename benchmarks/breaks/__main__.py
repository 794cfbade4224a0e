"""Do the tests notice bugs? Each planted break must make a test that is named for it fail.

    python -m benchmarks.breaks [--only WORD ...] [--jobs N] [--list]

The breaks stand in this folder, one file an area. Each is put into a copy of the tracked files; the working tree is not
touched. The tests of all chosen breaks run once without a break first: they must pass. Exits with 1 if a break was
missed or could not be tried.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from benchmarks.breaks.areas import AREAS
from benchmarks.breaks.planted import Break, Verdict, run_tests, verdict

ROOT = Path(__file__).parents[2]


def copy_of(root: Path, folder: Path) -> Path:
    """The files of `root` that git knows or would add, in `folder`."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, check=True, stdout=subprocess.PIPE, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    return folder


def fails_unbroken(trees: "SimpleQueue[Path]", breaks: list[Break], jobs: int) -> str:
    """Output of the chosen tests, a process a file, where one fails without a break; else ""."""
    files: dict[str, set[str]] = {}
    for test in {test for broken in breaks for test in broken.tests}:
        files.setdefault(test.partition("::")[0], set()).add(test)

    def attempt(tests: set[str]) -> str:
        tree = trees.get()
        try:
            status, output = run_tests(tree, tuple(sorted(tests)))
        finally:
            trees.put(tree)
        return output if status else ""

    with ThreadPoolExecutor(jobs) as pool:
        return "\n".join(filter(None, pool.map(attempt, files.values())))


def try_all(breaks: list[Break], root: Path, jobs: int) -> dict[Break, Verdict]:
    """Prints a line for each break as it is done."""
    with tempfile.TemporaryDirectory() as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for job in range(jobs):
            trees.put(copy_of(root, Path(folder) / str(job)))
        if output := fails_unbroken(trees, breaks, jobs):
            raise SystemExit(f"expected every test to pass without a break; mend these first:\n{output}")

        def attempt(broken: Break) -> Verdict:
            tree = trees.get()
            try:
                found, detail = verdict(tree, broken)
            finally:
                trees.put(tree)
            print(f"{found:7} {broken.name}" + (f"\n        {detail}" if detail else ""), flush=True)
            return found

        with ThreadPoolExecutor(jobs) as pool:
            return dict(zip(breaks, pool.map(attempt, breaks), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="breaks whose area or name holds one")
    parser.add_argument("--jobs", type=int, default=1, help="how many breaks are tried at once")
    parser.add_argument("--list", action="store_true", help="print the breaks, run nothing")
    args = parser.parse_args()
    chosen = [
        broken
        for area, breaks in AREAS.items()
        for broken in breaks
        if any(word in f"{area} {broken.name}" for word in args.only)
    ]
    if args.list or not chosen:
        print(*(broken.name for broken in chosen), sep="\n")
        return
    found = try_all(chosen, ROOT, args.jobs)
    counts = {verdict: sum(value == verdict for value in found.values()) for verdict in Verdict}
    print(f"{len(found)} breaks: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    sys.exit(0 if counts[Verdict.CAUGHT] == len(found) else 1)


if __name__ == "__main__":
    main()
