"""What tests measured: the fixture `measured` compares a number with its threshold and keeps both.

`--record FILE` appends a line of JSON for each item as it ends: outcome, numbers, CPU seconds, versions.
docs/studies.md is made of such lines (`python -m benchmarks.studies`).
"""

import json
import math
import operator
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Number:
    """A measured value beside what is wanted of it; true if it is so.

    `control`: the value is that of a run without the method, named here, and the same comparison must not hold.
    """

    what: str
    value: float
    comparison: str
    threshold: float
    control: str = ""

    def __bool__(self) -> bool:
        return COMPARISONS[self.comparison](self.value, self.threshold)

    def __repr__(self) -> str:
        wanted = f"{'not ' if self.control else ''}{self.comparison} {self.threshold:.4g}"
        return f"({': '.join(filter(None, [self.control, self.what]))} {self.value:.4g}, wanted {wanted})"


Measured = Callable[..., Number]
"""(what, value, comparison, threshold, control="") to a Number."""


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Compares, and keeps the number for the item's record: `assert measured("R@1", recall, ">", 0.6)`."""
    numbers: list[dict[str, Any]] = []
    request.node.user_properties.append(("numbers", numbers))

    def compare(what: str, value: float, comparison: str, threshold: float, control: str = "") -> Number:
        number = Number(what, float(value), comparison, float(threshold), control)
        numbers.append(asdict(number))
        return number

    return compare


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("records")
    group.addoption("--record", help="append to this file a line of JSON for each item: outcome, numbers, CPU seconds")
    group.addoption("--record-with", action="append", default=[], metavar="KEY=VALUE", help="what else each line says")


def pytest_configure(config: pytest.Config) -> None:
    if (file := config.getoption("record")) and not hasattr(config, "workerinput"):
        given = dict(word.split("=", 1) for word in config.getoption("record_with"))
        config.pluginmanager.register(Recorder(Path(file), given), "recorder of measured numbers")


def seeds_of(item: pytest.Item) -> list[int]:
    """The seed of an item that takes one, all seeds of the session for one that takes those; else none."""
    if "seed" in (params := item.callspec.params if hasattr(item, "callspec") else {}):
        return [params["seed"]]
    return list(getattr(item, "funcargs", {}).get("seeds") or ())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    item.user_properties.append(("seeds", seeds_of(item)))


class Recorder:
    """Runs where the session ends, on xdist's controller if there is one."""

    def __init__(self, file: Path, given: dict[str, str]) -> None:
        self._file, self._given = file, given
        self._outcomes: dict[str, tuple[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed or report.when == "call":
            self._outcomes.setdefault(report.nodeid, (report.outcome, _why(report)))
            if report.failed:  # the teardown of an item that passed
                self._outcomes[report.nodeid] = (report.outcome, _why(report))
        if report.when == "teardown":
            found = dict(report.user_properties)
            outcome, why = self._outcomes.pop(report.nodeid)
            seconds: Any = found.get("cpu", {})
            line = {
                "item": report.nodeid,
                "seeds": found["seeds"],
                "outcome": outcome,
                "why": why,
                "cpu_seconds": round(seconds.get("test", math.nan) + seconds.get("session fixtures", math.nan), 1),
                "numbers": found.get("numbers", []),
                "date": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),  # by which the later of two is told
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                **self._given,
            }
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(line) + "\n")


def _why(report: pytest.TestReport) -> str:
    """The first line of what went wrong, or the reason to skip."""
    if report.passed:
        return ""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash else str(report.longrepr)).splitlines()[0]
