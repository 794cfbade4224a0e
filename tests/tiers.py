"""Test tiers: what a plain `pytest` runs, what CI adds, what runs at night.

An item's marks place it in a tier (`TIERS`; unmarked items are tier 0). `--tier N` runs the tiers up to N. Without the
option a run of folders is tier 0; files and items that are named, or chosen by `-m`, run whatever their tier. Items
with the `study` mark run with `--studies` only.
"""

from typing import Any

import pytest

TIERS = {"integration": 1, "effect": 1, "java": 1, "nightly": 2, "study": 2}
HIGHEST = max(TIERS.values())


def marks_of(item: pytest.Item) -> list[str]:
    """The item's marks that place it in a tier, highest tier first."""
    return sorted((mark for mark in TIERS if item.get_closest_marker(mark)), key=TIERS.__getitem__, reverse=True)


def tier_of(item: pytest.Item) -> int:
    return max((TIERS[mark] for mark in marks_of(item)), default=0)


def chosen_tier(config: pytest.Config) -> int:
    """The highest tier of this session."""
    if (tier := config.getoption("tier")) is not None:
        return tier
    paths = [config.invocation_params.dir / str(word).partition("::")[0] for word in config.args]
    return 0 if any(path.is_dir() for path in paths) and not config.getoption("markexpr") else HIGHEST


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("test tiers")
    group.addoption(
        "--tier",
        type=int,
        choices=range(HIGHEST + 1),
        help="run the tiers up to this one: 0 unmarked items (default for folders), 1 also what CI runs, 2 everything",
    )
    group.addoption(
        "--studies", action="store_true", help="noisy effect tests over three seeds, and those of many minutes as well"
    )
    group.addoption(
        "--shared-runs",
        help="keep the runs that several tests start from in this folder, for later sessions of the same code",
    )


def pytest_report_header(config: pytest.Config) -> str:
    return f"tiers: 0 to {chosen_tier(config)}{', with studies' if config.getoption('studies') else ''}"


# Files whose items start from a shared run (session fixtures of tests/effects/conftest.py), by their group: one worker
# runs a group, so that no other waits while it trains the run.
GROUPS = {
    "test_clip": "clip",
    "test_encoder_evaluators": "clip",
}
SHARED_RUNS = ("clip_runs", "sceneworld_clip")


def group_of(nodeid: str) -> str:
    """Which items one xdist worker runs together: those of one file, or of the files that start from one shared run.

    Then module fixtures are made once.
    """
    stem = nodeid.partition("::")[0].rpartition("/")[2].removesuffix(".py")
    return GROUPS.get(stem, stem)


class Plugin:
    """Hooks that exist only where pytest-xdist does."""

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Under `--dist loadgroup`: whole groups. pytest-xdist 3.8 keeps its own by a name that pytest 9.1 dropped."""
        if config.getvalue("dist") != "loadgroup":
            return None
        from xdist.scheduler import LoadScopeScheduling

        class Groups(LoadScopeScheduling):
            def _split_scope(self, nodeid: str) -> str:
                return group_of(nodeid)

        return Groups(config, log)


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(Plugin(), "tiers of xdist")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects higher tiers and puts the long groups first.

    Those are groups of a shared run, then those with marked items: so the workers end at about the same time.
    """
    highest, studies = chosen_tier(config), config.getoption("studies")
    left_out = [item for item in items if tier_of(item) > highest or (item.get_closest_marker("study") and not studies)]
    config.hook.pytest_deselected(items=left_out)
    unwanted = set(left_out)
    items[:] = [item for item in items if item not in unwanted]
    long = {group_of(item.nodeid) for item in items if tier_of(item)}
    items.sort(key=lambda item: (group_of(item.nodeid) not in GROUPS.values(), group_of(item.nodeid) not in long))
