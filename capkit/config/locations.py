"""Location of the config files, and which keys hold paths."""

from pathlib import Path

import capkit

# Groups with any number of choices: the first line of their yaml files places them at `group.name`.
PICK_ANY = ("metric", "evaluator", "callback", "logger", "reward", "expert", "step")

# Last words of keys that name something to read, which must exist when a command starts.
INPUT_WORDS = frozenset(
    [
        "ckpt",
        "init_from",
        "resume",
        "images",
        "predictions",
        "references",
        "questions",
        "root",
        "captions",
        "annotations",
        "battles",
        "neighbors",
    ]
)
# Last words of all keys that hold paths: their values are taken literally, as the shell passes them.
PATH_WORDS = INPUT_WORDS | {
    "run_dir",
    "out",
    "path",
    "file",
    "folder",
    "dir",
    "manifest",
    "features",
    "attribute_features",
}
PATH_ENDINGS = ("_path", "_file", "_dir", "_root", "_folder", "_images")


def config_dir() -> Path:
    """The `configs` folder: inside the installed package, or next to it in a checkout."""
    package = Path(capkit.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def exists(path: str | Path) -> bool:
    """Whether a file or folder exists; False for a name that the file system cannot represent."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def is_path_key(key: str) -> bool:
    """Whether a key holds a path, judged by its last word."""
    word = key.rsplit(".", 1)[-1]
    return word in PATH_WORDS or word.endswith(PATH_ENDINGS)


def groups(folders: list[Path]) -> dict[str, list[str]]:
    """Choices of each config group (`model`), over all config folders."""
    found: dict[str, set[str]] = {}
    for folder in folders:
        for path in folder.rglob("*.yaml"):
            group = path.parent.relative_to(folder).as_posix()
            if group != ".":
                found.setdefault(group, set()).add(path.stem)
    return {group: sorted(names) for group, names in sorted(found.items())}
