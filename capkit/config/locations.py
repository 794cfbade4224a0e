"""Where the config files lie, and which keys hold paths."""

from pathlib import Path

import capkit

# Groups of which any number can be chosen: their yaml files name the place `group.name` in their first line.
PICK_ANY = ("metric", "evaluator", "callback", "logger", "reward", "step")

# The last word of keys whose value names something that is read: it must exist when a command starts.
INPUT_WORDS = frozenset(
    [
        "ckpt",
        "init_from",
        "resume",
        "images",
        "predictions",
        "references",
        "root",
        "captions",
        "annotations",
        "neighbors",
    ]
)
# Words of all keys that hold paths: their values are taken literally, as a shell hands them over.
PATH_WORDS = INPUT_WORDS | {"run_dir", "out", "path", "file", "folder", "dir", "manifest", "features"}
PATH_ENDINGS = ("_path", "_file", "_dir", "_root", "_folder", "_images")


def config_dir() -> Path:
    """The `configs` folder: inside the installed package, or beside it in a checkout."""
    package = Path(capkit.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def exists(path: str | Path) -> bool:
    """Whether a file or folder is there; False also for a name that no file system takes."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def is_path_key(key: str) -> bool:
    """Whether an override of this key holds a path: by its last word."""
    word = key.rsplit(".", 1)[-1]
    return word in PATH_WORDS or word.endswith(PATH_ENDINGS)


def groups(folders: list[Path]) -> dict[str, list[str]]:
    """Config group (`model`) -> its choices, over all config folders."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for path in folder.rglob("*.yaml"):
            group = path.parent.relative_to(folder).as_posix()
            if group != ".":
                found.setdefault(group, set()).add(path.stem)
    return {group: sorted(names) for group, names in sorted(found.items())}
