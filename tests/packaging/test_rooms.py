"""Each folder of the package has a README of a few lines, and names only what exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "capkit"
ROOMS = sorted(path for path in PACKAGE.iterdir() if any(path.rglob("*.py")))  # not what an old checkout left behind


def test_few_files_and_folders_stand_at_the_top():
    assert len([path for path in PACKAGE.glob("*.py")]) <= 9
    assert len(ROOMS) <= 29


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_folder_says_in_a_few_lines_what_lives_there(room):
    lines = (room / "README.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# {room.name}" and len(lines) <= 10
    assert any(line.startswith("- Never: ") for line in lines)
    assert all(len(line) <= 128 for line in lines)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_what_it_names_exists_there_or_in_the_package_or_the_repository(room):
    named = re.findall(r"`([\w./]+(?:\.py|\.md|/))`", (room / "README.md").read_text(encoding="utf-8"))
    for name in named:
        assert any((folder / name).exists() for folder in (room, PACKAGE, ROOT)), name


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_it_names_each_base_that_says_what_a_part_must_offer(room):
    text = (room / "README.md").read_text(encoding="utf-8")
    assert all(f"`{path.relative_to(room).as_posix()}`" in text for path in room.rglob("base.py"))
