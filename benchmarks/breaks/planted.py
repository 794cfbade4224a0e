"""What a planted break is, how it is put into a copy of the tree, and whether the tests named for it notice."""

import os
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

PYTEST = ["-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider"]
TESTS_PASSED = 0  # pytest's exit status


@dataclass(frozen=True)
class Break:
    """A plausible bug: in `file`, `old` (which occurs once) becomes `new`; at least one of `tests` must then fail.

    `tests` are pytest node ids or files, relative to the tree.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


class Verdict(StrEnum):
    CAUGHT = "caught"
    MISSED = "missed"
    STALE = "stale"  # the text to replace is not there, or more than once
    ERROR = "error"  # pytest could not run the tests: a break that stops the import is no break


def planted(text: str, broken: Break) -> str:
    """The file's text with the break.

    Raises:
        ValueError: if `old` does not occur exactly once.
    """
    if (count := text.count(broken.old)) != 1:
        raise ValueError(f"expected {broken.file} to hold {broken.old!r} once, found {count} times")
    return text.replace(broken.old, broken.new)


def run_tests(tree: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """pytest's exit status and the end of its output."""
    # Bytecode is found again by a file's size and the second of its change, which a break may leave as they are.
    environment = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([str(tree), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    done = subprocess.run(
        [sys.executable, *PYTEST, *tests],
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout[-2000:]


def verdict(tree: Path, broken: Break) -> tuple[Verdict, str]:
    """Break the tree, run the tests, mend the tree. The second value says what happened."""
    file = tree / broken.file
    whole = file.read_text()
    try:
        file.write_text(planted(whole, broken))
    except ValueError as error:
        return Verdict.STALE, str(error)
    try:
        status, output = run_tests(tree, broken.tests)
    finally:
        file.write_text(whole)
    if status == TESTS_PASSED:
        return Verdict.MISSED, ""
    # pytest names the item that failed, or whose fixture did; a file that it could not import has no "::".
    noticed = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR ")) and "::" in line]
    return (Verdict.CAUGHT, noticed[-1]) if noticed else (Verdict.ERROR, output)
