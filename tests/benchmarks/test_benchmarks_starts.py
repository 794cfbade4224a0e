"""What benchmarks/starts.py declares is what lies in the tree, and little of it."""

from benchmarks.starts import ABOUT, COMMITTED, FOLDER, STARTS, folder_of, recorded

MEGABYTES = 6


def test_every_start_is_in_the_tree_with_the_command_that_is_declared():
    folders = {folder_of(name, seed).name: (name, seed) for name, seed in COMMITTED}
    assert {path.name for path in FOLDER.iterdir()} == {*folders, ABOUT}
    assert recorded().keys() == folders.keys()
    for folder, (name, seed) in folders.items():
        about = recorded()[folder]
        assert about["command"] == f"python train.py {' '.join(STARTS[name].words_of(seed))}", "make it anew"
        assert about["numbers"].keys() == set(STARTS[name].numbers)


def test_starts_are_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < MEGABYTES * 1e6
