"""Old names of modules, classes and arguments: still importable, with a FutureWarning, and mended in what was saved.

`python -m capkit.utils.renamed FOLDER ...` rewrites, in place, imports and `_target_`s of your own Python files, yamls
and documents.
"""

import functools
import importlib
import importlib.abc
import importlib.machinery
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from capkit.utils.old_modules import MODULES
from capkit.utils.old_names import ARGUMENTS, CALLBACKS, KEYS, NAMES, TASK_KEYS

Class = TypeVar("Class", bound=type)
GONE_IN = "0.3"  # the version that no longer knows the old names


def takes_old_arguments(cls: Class) -> Class:
    """Decorate a class: its constructor takes keyword arguments by their old names too (ARGUMENTS), with a warning."""
    names = ARGUMENTS[f"{cls.__module__}.{cls.__qualname__}"]
    init = cls.__init__  # type: ignore[misc]

    @functools.wraps(init)
    def with_new_names(self: Any, *args: Any, **kwargs: Any) -> None:
        for old, new in names.items():
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(f"{cls.__name__}: expected {new}, got {new} and its old name {old}; keep {new}")
                warn_of_old_name(f"{cls.__name__}({old}=...)", f"{cls.__name__}({new}=...)")
                kwargs[new] = kwargs.pop(old)
        init(self, *args, **kwargs)

    cls.__init__ = with_new_names  # type: ignore[misc]
    return cls


def new_name(dotted: str) -> str:
    """The name of today of a module, or of something in one; as it is where nothing has changed."""
    if dotted in NAMES:
        return NAMES[dotted]
    words = dotted.split(".")
    for length in range(len(words), 1, -1):
        module = ".".join(words[:length])
        if module in MODULES and not _is_module(dotted, length):
            moved = ".".join([MODULES[module], *words[length:]])
            return NAMES.get(moved, moved)
    return dotted


def _is_module(dotted: str, length: int) -> bool:
    """Whether a name whose first words are an old module is one of today's: capkit.text is a folder now."""
    folder = Path(__file__).parents[2].joinpath(*dotted.split(".")[:length])
    words = dotted.split(".")[length:]
    return bool(words) and ((folder / f"{words[0]}.py").exists() or (folder / words[0]).is_dir())


def new_key(key: str, task: str = "") -> str:
    """The name of today of a config's key, as it is typed for a task: `metric.clip_score.judge.ckpt`."""
    head, *rest = key.split(".")
    if head in ("metric", "reward") and rest and not rest[0].startswith(("nli", "arena")):
        rest = ["encoder" if word == "judge" else word for word in rest]
    return ".".join([(KEYS | TASK_KEYS.get(task, {})).get(head, head), *rest])


def renamed_config(config: Any) -> Any:
    """The config of an earlier run, as plain data, with keys, classes and arguments under their names of today.

    A part under a name that was a run's once (`judge`) is today's.
    """
    if not isinstance(config, dict):
        return config
    return {
        key if isinstance(value, dict) else KEYS.get(key, key): renamed_targets(value) for key, value in config.items()
    }


def renamed_targets(node: Any, tell: Callable[[str, str], None] | None = None) -> Any:
    """A config as plain data with classes and their arguments under their names of today.

    `tell` receives each old name of a class and its new one.
    """
    if isinstance(node, list):
        return [renamed_targets(value, tell) for value in node]
    if not isinstance(node, dict):
        return node
    renamed = {key: renamed_targets(value, tell) for key, value in node.items()}
    target = node.get("_target_")
    if isinstance(target, str) and (new := new_name(target)) != target:
        renamed["_target_"] = new
        if tell is not None:
            tell(target, new)
    arguments = ARGUMENTS.get(renamed["_target_"], {}) if isinstance(target, str) else {}
    return {arguments.get(key, key): value for key, value in renamed.items()}


def renamed_state(checkpoint: Any) -> Any:
    """A checkpoint's plain data with the config in it, and what callbacks saved, under the names of today."""
    if not isinstance(checkpoint, dict):
        return checkpoint
    renamed = dict(checkpoint)
    if isinstance(callbacks := checkpoint.get("callbacks"), dict):
        renamed["callbacks"] = {CALLBACKS.get(name, name): state for name, state in callbacks.items()}
    if isinstance(own := checkpoint.get("capkit"), dict) and "config" in own:
        renamed["capkit"] = {**own, "config": renamed_config(own["config"])}
    return renamed


def warn_of_old_name(old: str, new: str) -> None:
    """At the line of whoever used the old name, which called what calls this."""
    warnings.warn(f"{old} is now {new}; the old name works until capkit {GONE_IN}", FutureWarning, stacklevel=3)


class _OldModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules under their old names. It is asked last: for what exists it is not asked at all."""

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MODULES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name, f"The old name of {MODULES[spec.name]}.")
        module.__dict__["__getattr__"] = moved_names(spec.name)
        return module

    def exec_module(self, module: ModuleType) -> None:
        warn_of_old_name(module.__name__, MODULES[module.__name__])


def find_old_modules() -> None:
    """From here on the old names of modules can be imported."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.append(_OldModules())


def moved_names(old_module: str) -> Callable[[str], Any]:
    """`__getattr__` of a module that has moved, or of a folder that has the name of an old module."""

    def __getattr__(name: str) -> Any:
        old = f"{old_module}.{name}"
        new = new_name(old)
        if name.startswith("__") or new == old:
            raise AttributeError(f"module {old_module!r} has no attribute {name!r}")
        module, _, leaf = new.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), leaf)
        except AttributeError:
            raise AttributeError(f"module {old_module!r} has no attribute {name!r}") from None
        warn_of_old_name(old, new)
        return found

    return __getattr__


_DOTTED = re.compile(r"(?<![\w./])capkit(?:\.[A-Za-z_]\w*)+")
_FROM = re.compile(r"^(?P<indent>[ \t]*)from (?P<module>capkit[\w.]*) import (?P<names>\([^)]*\)|[^\n(]*)$", re.M)


def rewritten(text: str) -> str:
    """A text whose names of capkit are those of today: `from` imports, and dotted names wherever they stand.

    A name that has changed within its module (`CaptionModule`, now `MLEModule`) keeps its old name by `as`.
    """

    def imports(match: re.Match[str]) -> str:
        new: dict[str, list[str]] = {}
        for item in match["names"].strip("()").replace("\n", " ").split(","):
            words = item.split()
            if not words:
                continue
            module, _, leaf = new_name(f"{match['module']}.{words[0]}").rpartition(".")
            alias = words[2] if len(words) == 3 else words[0]
            new.setdefault(module, []).append(leaf if leaf == alias else f"{leaf} as {alias}")
        return "\n".join(f"{match['indent']}from {module} import {', '.join(names)}" for module, names in new.items())

    text = _FROM.sub(imports, text)
    return _DOTTED.sub(lambda match: match.group() if _follows_from(match) else new_name(match.group()), text)


def _follows_from(match: re.Match[str]) -> bool:
    """Whether a dotted name is that of a `from` import, which is new already."""
    return match.string[max(0, match.start() - 5) : match.start()] == "from "


def files_in(folders: Sequence[str]) -> Iterator[Path]:
    for folder in map(Path, folders):
        found = folder.rglob("*") if folder.is_dir() else [folder]
        yield from (path for path in sorted(found) if path.suffix in (".py", ".yaml", ".yml", ".md", ".sh"))


def main(folders: Sequence[str]) -> None:
    for path in files_in(folders):
        text = path.read_text(encoding="utf-8")
        if (new := rewritten(text)) != text:
            path.write_text(new, encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
