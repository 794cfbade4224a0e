"""Test tiers: what a plain `pytest` runs, what CI adds, what runs at night.

An item's marks place it in a tier (`TIERS`; unmarked items are tier 0). `--tier N` runs the tiers up to N. Without the
option a run of folders is tier 0; files and items that are named, or chosen by `-m`, run whatever their tier. Items
with the `study` mark run with `--studies` only.
"""

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


# Session fixtures that train a run which items of several files start from (tests/effects/conftest.py).
SHARED_RUNS = {"sceneworld_clip": "clip", "generic_captioner": "rl", "judges": "rl"}  # fixture: group


def group_of(item: pytest.Item) -> str:
    """Which items one xdist worker runs together: those that start from one shared run, else those of one file.

    Then module fixtures are made once, and no worker waits while another one trains the run.
    """
    fixtures = getattr(item, "fixturenames", ())
    return next((group for name, group in SHARED_RUNS.items() if name in fixtures), item.path.stem)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects higher tiers, marks groups for `--dist loadgroup`, and puts the long groups first.

    Those are groups of a shared run, then those with marked items: so the workers end at about the same time.
    """
    highest, studies = chosen_tier(config), config.getoption("studies")
    left_out = [item for item in items if tier_of(item) > highest or (item.get_closest_marker("study") and not studies)]
    config.hook.pytest_deselected(items=left_out)
    unwanted = set(left_out)
    items[:] = [item for item in items if item not in unwanted]
    long = {group_of(item) for item in items if tier_of(item)}
    items.sort(key=lambda item: (group_of(item) not in SHARED_RUNS.values(), group_of(item) not in long))
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(group_of(item)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Names items without xdist's `@GROUP` suffix, so that a reported name can be run again."""
    if hasattr(report, "node"):  # set by xdist on the controller
        name, at, group = report.nodeid.rpartition("@")
        if at and "]" not in group:
            report.nodeid = name
