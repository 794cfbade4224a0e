"""Measures the CPU seconds of every test item, and holds items and tiers to a budget.

CPU seconds, of this process and its descendants, mean the same on an idle and on a busy machine; wall time does not.
Neither the first import of a module nor a session fixture is charged to the item that
happens to come first.

An unmarked item (tier 0, see tiers.py) that takes more than `item_cpu_seconds` fails. Every session prints what each
tier took and its longest items, and writes all items to `--cpu-file`. With `--budget` a session fails above
`tier_cpu_seconds`.
"""

import functools
import json
import os
import resource
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from importlib import _bootstrap  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any

import pytest
from tiers import TIERS, chosen_tier, marks_of

LONGEST = 10


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("CPU time")
    group.addoption("--budget", action="store_true", help="fail if a tier takes more CPU seconds than tier_cpu_seconds")
    group.addoption("--cpu-file", default=".pytest_cache/cpu_seconds.json", help="where the seconds of all items go")
    parser.addini("item_cpu_seconds", "CPU seconds that an unmarked item may take", default="5")
    parser.addini("tier_cpu_seconds", "CPU seconds of a session of each tier: 0, 1 ...", type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(ItemSeconds(config), "cpu_budget_items")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(TierSeconds(config), "cpu_budget_tiers")


def cpu_seconds() -> float:
    """CPU seconds of this process, of its children that have ended, and on Linux of its living descendants.

    Processes of `run_distributed` are children of multiprocessing's fork server, which outlives an item.
    """
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    living = sum(_ticks(child) for child in _children(os.getpid())) / os.sysconf("SC_CLK_TCK")
    return sum(usage.ru_utime + usage.ru_stime for usage in usages) + living


def _children(process: int) -> list[int]:
    found = [int(child) for file in Path(f"/proc/{process}/task").glob("*/children") for child in _read(file).split()]
    return [*found, *(below for child in found for below in _children(child))]


def _ticks(process: int) -> int:
    """utime, stime, cutime and cstime of proc_pid_stat(5)."""
    return sum(int(word) for word in _read(Path(f"/proc/{process}/stat")).rpartition(")")[2].split()[11:15])


def _read(path: Path) -> str:
    """Nothing if the process has ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class ItemSeconds:
    """Runs where items run: measures each, and fails those of tier 0 that take too long."""

    def __init__(self, config: pytest.Config) -> None:
        self._config, self._limit = config, float(config.getini("item_cpu_seconds"))
        self._imports = self._shared = self._spent = 0.0
        self._inside_shared = False

    def _clock(self) -> float:
        """CPU seconds without those of imports and session fixtures."""
        return cpu_seconds() - self._imports - self._shared

    @contextmanager
    def _charged(self) -> Iterator[None]:
        started = self._clock()
        with import_timer(self._add_import):
            yield
        self._spent += self._clock() - started

    def _add_import(self, seconds: float) -> None:
        if not self._inside_shared:
            self._imports += seconds

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        if fixturedef.scope != "session" or self._inside_shared:
            return (yield)
        self._inside_shared, started = True, cpu_seconds()
        try:
            return (yield)
        finally:
            self._inside_shared = False
            self._shared += cpu_seconds() - started

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, Any, Any]:
        self._imports = self._shared = self._spent = 0.0
        with self._charged():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        with self._charged():
            result = yield
        if not marks_of(item) and self._spent > self._limit:
            pytest.fail(
                f"expected an unmarked test to take at most {self._limit:g} CPU seconds, got {self._spent:.1f} (module"
                " fixtures that it is the first to use included); use less data or fewer steps, share a run by a"
                " fixture, or give a mark: `integration` for whole runs and several processes, `effect` for what a"
                " method does on SceneWorld, `nightly` for long versions of a short test",
                pytrace=False,
            )
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        try:
            with self._charged():
                return (yield)
        finally:
            seconds = {"test": self._spent, "session fixtures": self._shared, "imports": self._imports}
            item.user_properties.append(("cpu", {name: round(value, 3) for name, value in seconds.items()}))
            item.user_properties.append(("marks", marks_of(item)))

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["cpu_seconds"] = cpu_seconds()


@contextmanager
def import_timer(add: Callable[[float], None]) -> Iterator[None]:
    """Passes the CPU seconds of each import of this thread to `add`; imports within an import count once.

    Python calls `_find_and_load` for modules that are not loaded yet, by any way of importing. To wrap `__import__`
    would cost at each `import` within a function too: a fifth of the time that it takes to compose a config.
    """
    thread, inside, load = threading.current_thread(), False, _bootstrap._find_and_load

    @functools.wraps(load)
    def timed(*args: Any) -> Any:
        nonlocal inside
        if inside or threading.current_thread() is not thread:
            return load(*args)
        inside, started = True, time.thread_time()
        try:
            return load(*args)
        finally:
            inside = False
            add(time.thread_time() - started)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_bootstrap, "_find_and_load", timed)
        yield


class TierSeconds:
    """Runs where the session ends, on xdist's controller if there is one: sums, prints, writes, and compares."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._items: dict[str, dict[str, Any]] = {}
        self._workers = 0.0
        self._problems: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            properties = dict(report.user_properties)
            if "cpu" in properties:
                self._items[report.nodeid] = {"marks": properties["marks"], **properties["cpu"]}  # type: ignore[dict-item]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._workers += getattr(node, "workeroutput", {}).get("cpu_seconds", 0.0)

    def _seconds_by_tier(self) -> list[float]:
        """Of each tier's own items, with the session fixtures that they were the first to use."""
        seconds: dict[int, float] = defaultdict(float)
        for row in self._items.values():
            seconds[max((TIERS[mark] for mark in row["marks"]), default=0)] += row["test"] + row["session fixtures"]
        return [seconds[tier] for tier in range(chosen_tier(self._config) + 1)]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._total = self._workers + time.process_time() if self._workers else cpu_seconds()
        self._tiers = self._seconds_by_tier()
        path = self._config.rootpath / self._config.getoption("cpu_file")
        if self._items:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"total": round(self._total, 1), "items": self._items}, indent=0))
        if self._config.getoption("budget"):
            limits = [float(limit) for limit in self._config.getini("tier_cpu_seconds")]
            starting = self._total - sum(self._tiers)
            for tier, limit in enumerate(limits[: len(self._tiers)]):
                if (spent := starting + sum(self._tiers[: tier + 1])) > limit:
                    self._problems.append(f"expected tier {tier} within {limit:.0f} CPU seconds, got {spent:.0f}")
            if self._problems and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        write = terminalreporter.write_line
        if self._items and terminalreporter.verbosity >= 0:
            terminalreporter.section("CPU time")
            for tier, seconds in enumerate(self._tiers):
                write(f"{seconds / 60:7.2f} min  items of tier {tier}")
            write(f"{(self._total - sum(self._tiers)) / 60:7.2f} min  starting, importing and collecting")
            write(f"{self._total / 60:7.2f} min  in all; every item in {self._config.getoption('cpu_file')}; longest:")
            for name, row in sorted(self._items.items(), key=lambda pair: -pair[1]["test"])[:LONGEST]:
                write(f"{row['test']:7.2f} s    {name} {' '.join(row['marks'])}")
        for problem in self._problems:
            write(f"over budget: {problem}; shorten the longest items or mark them for a higher tier", red=True)
